"""rtnetlink: the formats of its messages, their decoding to values, and the reader that dumps them.

``formats`` has the numbers and fixed headers, ``decoding`` makes one value of each message (``hitless.model.links``),
``reader`` reads a namespace's links, addresses, routes and neighbours. Writing and events of the overlay's own objects
are in ``hitless.kernel.links``. This module imports nothing: daemons load only what they use.
"""
