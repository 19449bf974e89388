"""The port to a Kubernetes API server: whom to ask, as whom, and what is read and written.

Problem: what drills, daemons and reports know of a cluster comes by one kind of connection, and each reader of a
kubeconfig and each client of its own had its own gaps. Promise: one reader of kubeconfigs (``kubeconfig``,
``contexts``), one place for proxies, TLS and credentials, and two clients over the same answers: ``api`` for tools
(httpx2: repeats, websockets, waits for states) and ``client`` for daemons (the standard library). It knows nothing of
agents, drills or rules.
"""
