"""The verdict: a pure function of the event log.

Problem: the same log must give the same verdict now, in a year, and to other users. Promise: ``decide`` reads events
and nothing else: no clock, no file, no environment. Pass: enough was attempted, the restarts happened, watch and prober
worked, and nothing was lost. Fail: connections were lost, or the rules did not carry egress. Everything else is
inconclusive, with the reasons.
Next stage: ``reports`` renders a ``Verdict``; the schema of its JSON is the structs below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from hitless.evidence import display_names
from hitless.evidence.criteria import VerdictReasons, reasons
from hitless.evidence.figures import Figures, add, count
from hitless.evidence.notes import warnings
from hitless.evidence.partial_egress import partly
from hitless.evidence.pod_to_pod import with_pods
from hitless.evidence.reason_codes import VerdictReason
from hitless.evidence.records import RecordedDrill, grouped
from hitless.model.events import SCHEMA, Event

__all__ = ["AgentVerdict", "Verdict", "VerdictValue", "decide", "judge"]

VerdictValue = Literal["pass", "fail", "inconclusive"]


class AgentVerdict(Figures, frozen=True, kw_only=True):
    """An agent's figures, the verdict, and its reasons, the most important ones first.

    ``reason_codes`` has the code of each reason, in the same order. ``display_name``: the name in reports;
    ``stand_in``: it replays another program's commands (``replays``: which).
    """

    verdict: VerdictValue
    reasons: tuple[str, ...]
    reason_codes: tuple[str, ...] = ()
    display_name: str = ""
    stand_in: bool = False
    replays: str = ""

    @property
    def name(self) -> str:
        """Its name in reports."""
        return self.display_name or self.agent


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A drill's verdict: the worst one of the judged agents, and each agent's own.

    ``headline``: the verdict, whose it is, and how the other agents did; ``judge`` is ``judged`` as one text.
    """

    schema: int = SCHEMA
    verdict: VerdictValue
    headline: str = ""
    judge: str
    judged: tuple[str, ...] = ()
    agents: tuple[AgentVerdict, ...]
    whole: bool = True
    notes: tuple[str, ...] = ()
    events: str = ""


def decide(events: Iterable[Event], *, path: str = "") -> Verdict:
    """Judge the events of a log; ``path`` is copied into the result."""
    return judge(grouped(events), path=path)


def judge(recorded: RecordedDrill, *, path: str = "") -> Verdict:
    """Judge a log whose events are grouped already."""
    agents = tuple(_agent(recorded, agent) for agent in recorded.agents)
    judged = recorded.settings.judged or tuple(one.agent for one in agents[-1:])
    values = {one.agent: one.verdict for one in agents}
    value = _worst([values.get(name, "inconclusive") for name in judged])
    notes = (
        *(note.text for note in recorded.notes if note.level != "info"),
        *warnings(recorded),
        *partly(recorded.records),
    )
    if not agents:
        notes = (*notes, "the log names no agent")
    # a file's name is bytes, and a report is text
    where = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return Verdict(
        verdict=value,
        headline=_headline(value, judged, agents),
        judge=", ".join(judged),
        judged=judged,
        agents=agents,
        whole=recorded.whole,
        notes=notes,
        events=where,
    )


def _worst(values: Sequence[VerdictValue]) -> VerdictValue:
    """Fail before inconclusive before pass; without any, inconclusive."""
    return "fail" if "fail" in values else "pass" if values and set(values) == {"pass"} else "inconclusive"


def _headline(value: VerdictValue, judged: Sequence[str], agents: Sequence[AgentVerdict]) -> str:
    """``PASS for hitless; 2 of 3 agents failed``."""
    values = {one.agent: one.verdict for one in agents}
    shown = {one.agent: one.name for one in agents}
    whose = [shown.get(name, name) for name in judged if values.get(name, "inconclusive") == value]
    text = f"{value.upper()} for {' and '.join(filter(None, [', '.join(whose[:-1]), *whose[-1:]])) or 'no agent'}"
    # the names of --guard's rows say so already
    helped = [one for one in agents if one.agent in judged and one.bridged_gaps and not one.agent.endswith("+guard")]
    text += " with the help of a guard's standby" if value == "pass" and helped else ""
    failed, unclear = (sum(one.verdict == kind for one in agents) for kind in ("fail", "inconclusive"))
    if len(agents) < 2:
        return text
    if not failed and not unclear:
        return f"{text}; all {len(agents)} agents passed"
    parts = [f"{failed} of {len(agents)} agents failed"] if failed else []
    parts += [f"{unclear} of {len(agents)} inconclusive"] if unclear else []
    return f"{text}; {', '.join(parts)}"


def _agent(recorded: RecordedDrill, agent: str) -> AgentVerdict:
    records = [record for record in recorded.records if record.agent == agent]
    figures = [count(record, recorded.settings.rounds) for record in records]
    found = [
        with_pods(record, recorded.settings, reasons(record, figure, recorded.settings, whole=recorded.whole))
        for record, figure in zip(records, figures, strict=True)
    ]
    values = [_value(one) for one in found]
    value = _worst(values)
    listed = [
        (f"{record.node}: {reason.text}" if len(records) > 1 else reason.text, reason.name)
        for record, one, own in zip(records, found, values, strict=True)
        # reasons of nodes that passed are listed only if all passed
        if own != "pass" or value == "pass"
        for reason in _listed(one, own)
    ]
    total = add(agent, figures)
    replays = display_names.replays(recorded.settings, agent)
    judged: dict[str, object] = {
        "verdict": value,
        "reasons": tuple(text for text, _ in listed),
        "reason_codes": tuple(code for _, code in listed),
        "display_name": display_names.display(recorded.settings, agent),
    }
    known = recorded.settings.far_end or recorded.settings.target not in ("cluster", "node") or total.leaked > 0
    judged |= {"leaks_known": known}
    judged |= {"stand_in": bool(replays), "replays": replays}
    return msgspec.convert({**msgspec.structs.asdict(total), **judged}, AgentVerdict, from_attributes=True)


def _value(one: VerdictReasons) -> VerdictValue:
    if one.invalid:
        return "inconclusive"
    if one.failures:
        return "fail"
    return "inconclusive" if one.doubts else "pass"


def _listed(one: VerdictReasons, value: VerdictValue) -> tuple[VerdictReason, ...]:
    if value == "pass":
        return one.passed
    listed: list[VerdictReason] = []
    for reason in (*one.invalid, *one.failures, *one.doubts, *one.remarks):
        if reason not in listed and not any(reason.text == earlier.quoted for earlier in listed):
            listed.append(reason)
    return tuple(listed)
