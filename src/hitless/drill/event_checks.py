"""Which events a tool's stream may contain.

Problem: the streams of a drill come from pods and processes on many nodes. A broken or foreign one could write the
drill's phases, another node's gaps or another tool's losses, and the verdict would be based on them. Promise: an event
is accepted only if its tool can observe it: one of the tool's types, the tool's own name in header and summary, its own
node. All others are refused with a reason. Pure. Next stage: ``drill_log`` fills in node, agent and stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from hitless.evidence.records import PODS
from hitless.model import events as e

__all__ = ["EventCheck", "refused"]

_ALWAYS = (e.Header, e.Heartbeat, e.Note, e.Summary, e.Unknown)
_KNOWS: dict[str, tuple[type, ...]] = {
    "watch": (e.Change, e.RuleState, e.Gap, e.Bridged, e.Standby, e.LostEvents),
    "probe": (e.Attempts, e.Loss, e.Recovery, e.StreamBreak, e.Leak),
    "farend": (e.Leak,),
    "relay": (),
}
_FAR_ENDS = frozenset({"farend", f"{PODS}_farend"})
_CONTROL = "control"  # set by the probe itself, for traffic that does not pass the egress path
_REPORTED = 3


def _tool(stream: str) -> str:
    """The command behind a stream: all streams except watch, far end and relay are probers (probe, control_…, pods)."""
    return "farend" if stream in _FAR_ENDS else stream if stream in _KNOWS else "probe"


def refused(event: e.Event, stream: str, node: str) -> str:
    """Why the event is not accepted from this stream of this node; empty if it is."""
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
class EventCheck:
    """Checks the events of one source. Refused ones are counted, and the first three are reported."""

    count: int = 0

    def admit(self, event: e.Event, stream: str, node: str) -> tuple[bool, str]:
        """Whether to accept the event; if not, the text to report, empty after the third one."""
        why = refused(event, stream, node)
        return (False, self.broken(f"an event of {stream} on {node} was refused: {why}")) if why else (True, "")

    def broken(self, text: str) -> str:
        """Count a line or event that was not accepted; returns the text to report, empty after the third one."""
        self.count += 1
        if self.count > _REPORTED:
            return ""
        return f"{text}; what else is not taken is only counted" if self.count == _REPORTED else text

    def last(self) -> str:
        """The text to report at the end; empty if everything was reported already."""
        return f"{self.count} lines and events were not taken in all" if self.count > _REPORTED else ""
