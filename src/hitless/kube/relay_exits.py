"""Exit codes of ``hitless relay`` by which its caller, on the other side of an API server, decides what to do.

Problem: a command in a pod has one channel back that others cannot write to, its exit code. Promise: each such code is
defined once, for both sides; importing it costs nothing. Next stages: ``streams``, ``hitless.cluster.relay``.
"""

from __future__ import annotations

__all__ = ["NO_PROCESS", "TAKEN_OVER"]

NO_PROCESS = 2
"""``relay signal``: no process of the container is seen."""

TAKEN_OVER = 4
"""``relay read``: a second reader came, by a request of ours whose answer was lost. Reading on is possible."""
