"""What a tool's stream may tell.

Problem: the streams of a drill come from pods and processes on many nodes; one that is broken, or somebody else's by
now, could write the drill's calendar, another node's gaps or another tool's losses, and the verdict would believe it.
Promise: an event is taken only if a tool of its stream can know it: its types, its own name in header and last word,
its own node; the rest is refused with a reason. Pure. Next stage: ``recording`` fills in node, agent and stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from hitless.evidence.records import PODS
from hitless.model import events as e

__all__ = ["Claims", "refused"]

_ALWAYS = (e.Header, e.Heartbeat, e.Note, e.Summary, e.Unknown)
_KNOWS: dict[str, tuple[type, ...]] = {
    "watch": (e.Change, e.RuleState, e.Gap, e.Bridged, e.Standby, e.LostEvents),
    "probe": (e.Attempts, e.Loss, e.Recovery, e.StreamBreak),
    "farend": (e.Leak,),
    "relay": (),
}
_FAR_ENDS = frozenset({"farend", f"{PODS}_farend"})
_CONTROL = "control"  # a probe's own mark for what does not pass the egress path
_SAID = 3


def _tool(stream: str) -> str:
    """The command behind a stream: whatever is no watch, far end or relay is a prober (probe, control_…, pods)."""
    return "farend" if stream in _FAR_ENDS else stream if stream in _KNOWS else "probe"


def refused(event: e.Event, stream: str, node: str) -> str:
    """Why a stream of a node may not tell this; empty: it may."""
    tool = _tool(stream)
    kind = str(event.__struct_config__.tag)
    if not isinstance(event, (*_ALWAYS, *_KNOWS[tool])) or (tool == "relay" and not isinstance(event, e.Note)):
        return f"a {tool} does not know of {kind}"
    if isinstance(event, e.Header | e.Heartbeat | e.Summary) and event.tool != tool:
        return f"it says that it is {event.tool[:40]!r}"
    if event.node not in ("", node):
        return f"it reports of the node {event.node[:80]!r}"
    if event.agent:
        return f"it reports of the agent {event.agent[:80]!r}"
    if event.stream not in ("", stream) and (tool, event.stream) != ("probe", _CONTROL):
        return f"it reports as the stream {event.stream[:40]!r}"
    return ""


@dataclass
class Claims:
    """One source's events: what was refused is told three times in full, and counted."""

    count: int = 0

    def admit(self, event: e.Event, stream: str, node: str) -> tuple[bool, str]:
        """Whether to take the event; else what to tell people, empty where enough was told."""
        why = refused(event, stream, node)
        return (False, self.broken(f"an event of {stream} on {node} was refused: {why}")) if why else (True, "")

    def broken(self, text: str) -> str:
        """Count something that was not taken; what to tell people of it, empty where enough was told."""
        self.count += 1
        if self.count > _SAID:
            return ""
        return f"{text}; what else is not taken is only counted" if self.count == _SAID else text

    def last(self) -> str:
        """What to tell at the end; empty: nothing that was not told."""
        return f"{self.count} lines and events were not taken in all" if self.count > _SAID else ""
