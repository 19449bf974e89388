"""Words of ours that come back by way of an API server: what runs in a pod says them, who asked for it reads them.

Problem: the end of a command in a pod reaches its caller as text only. Promise: each such text stands here once, for
both sides; it costs nothing to import. Next stages: ``streams``, ``hitless.cluster.relay``.
"""

from __future__ import annotations

__all__ = ["TAKEN_OVER"]

TAKEN_OVER = "another reader has taken over"
"""Of a reader that gave way to a second one: by a request of ours that was thought lost."""
