"""Links, addresses, routes, neighbours and forwarding entries: read whole, written in batches, followed by events."""

from hitless.kernel.links.events import LinkEvent, LinkEvents
from hitless.kernel.links.port import Links

__all__ = ["LinkEvent", "LinkEvents", "Links"]
