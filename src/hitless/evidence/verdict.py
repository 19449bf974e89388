"""The verdict: a pure function of the event log.

Problem: the same drill must be judged alike now, from the log a year later, and by somebody else. Promise: ``decide``
reads events and nothing else: no clock, no file, no environment. Pass means that enough was attempted, that the
restarts happened, that the watcher and the prober could see, and that nothing was lost; fail that the pods felt it or
that the rules did not carry it; anything in between is inconclusive, with the reasons.
Next stage: ``reports`` renders a ``Verdict``; the schema of its JSON is the structs below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from hitless.evidence import display_names
from hitless.evidence.criteria import VerdictReasons, reasons
from hitless.evidence.figures import Figures, add, count
from hitless.evidence.partial_egress import partly
from hitless.evidence.pod_to_pod import with_pods
from hitless.evidence.records import RecordedDrill, grouped
from hitless.model.events import SCHEMA, Event

__all__ = ["AgentVerdict", "Verdict", "VerdictValue", "decide", "judge"]

VerdictValue = Literal["pass", "fail", "inconclusive"]


class AgentVerdict(Figures, frozen=True, kw_only=True):
    """An agent's figures, what follows from them, and why: the heaviest reasons first.

    ``display_name`` is what people read; ``stand_in``: the agent replays another's commands (``replays`` says which).
    """

    verdict: VerdictValue
    reasons: tuple[str, ...]
    display_name: str = ""
    stand_in: bool = False
    replays: str = ""

    @property
    def name(self) -> str:
        """Its name for people."""
        return self.display_name or self.agent


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A drill's outcome: the worst verdict of the judged agents, and every agent's.

    ``headline`` says for whom the verdict is and how many of all agents it is not; ``judge`` is ``judged`` in one text.
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
    """Judge the events of a log; ``path`` is only repeated in the result."""
    return judge(grouped(events), path=path)


def judge(told: RecordedDrill, *, path: str = "") -> Verdict:
    """Judge a story that was sorted already."""
    agents = tuple(_agent(told, agent) for agent in told.agents)
    judged = told.settings.judged or tuple(one.agent for one in agents[-1:])
    words = {one.agent: one.verdict for one in agents}
    word = _worst([words.get(name, "inconclusive") for name in judged])
    notes = (*(note.text for note in told.notes if note.level != "info"), *partly(told.records))
    if not agents:
        notes = (*notes, "the log names no agent")
    # a file's name is bytes, and a report is text
    where = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return Verdict(
        verdict=word,
        headline=_headline(word, judged, agents),
        judge=", ".join(judged),
        judged=judged,
        agents=agents,
        whole=told.whole,
        notes=notes,
        events=where,
    )


def _worst(words: Sequence[VerdictValue]) -> VerdictValue:
    """Fail before inconclusive before pass; of nothing, inconclusive."""
    return "fail" if "fail" in words else "pass" if words and set(words) == {"pass"} else "inconclusive"


def _headline(word: VerdictValue, judged: Sequence[str], agents: Sequence[AgentVerdict]) -> str:
    """``PASS for hitless; 2 of 3 agents failed``: whose verdict it is, and what it does not say."""
    words = {one.agent: one.verdict for one in agents}
    shown = {one.agent: one.name for one in agents}
    whose = [shown.get(name, name) for name in judged if words.get(name, "inconclusive") == word]
    said = f"{word.upper()} for {' and '.join(filter(None, [', '.join(whose[:-1]), *whose[-1:]])) or 'nobody'}"
    # a row of --guard says so by its name
    helped = [one for one in agents if one.agent in judged and one.bridged_gaps and not one.agent.endswith("+guard")]
    said += " with the help of a guard's standby" if word == "pass" and helped else ""
    failed, unclear = (sum(one.verdict == kind for one in agents) for kind in ("fail", "inconclusive"))
    if len(agents) < 2:
        return said
    if not failed and not unclear:
        return f"{said}; all {len(agents)} agents passed"
    parts = [f"{failed} of {len(agents)} agents failed"] if failed else []
    parts += [f"{unclear} of {len(agents)} inconclusive"] if unclear else []
    return f"{said}; {', '.join(parts)}"


def _agent(told: RecordedDrill, agent: str) -> AgentVerdict:
    records = [record for record in told.records if record.agent == agent]
    figures = [count(record, told.settings.rounds) for record in records]
    found = [
        with_pods(record, told.settings, reasons(record, figure, told.settings, whole=told.whole))
        for record, figure in zip(records, figures, strict=True)
    ]
    words = [_word(one) for one in found]
    word = _worst(words)
    texts = [
        f"{record.node}: {text}" if len(records) > 1 else text
        for record, one, own in zip(records, found, words, strict=True)
        # A node that passed says so only where all did: beside another's failure it would drown the reason.
        if own != "pass" or word == "pass"
        for text in _texts(one, own)
    ]
    total = add(agent, figures)
    replays = display_names.replays(told.settings, agent)
    judged: dict[str, object] = {
        "verdict": word,
        "reasons": tuple(texts),
        "display_name": display_names.display(told.settings, agent),
    }
    told_of = told.settings.far_end or told.settings.target not in ("cluster", "node") or total.leaked > 0
    judged |= {"leaks_known": told_of}
    judged |= {"stand_in": bool(replays), "replays": replays}
    return msgspec.convert({**msgspec.structs.asdict(total), **judged}, AgentVerdict, from_attributes=True)


def _word(one: VerdictReasons) -> VerdictValue:
    if one.void:
        return "inconclusive"
    if one.harm:
        return "fail"
    return "inconclusive" if one.doubt else "pass"


def _texts(one: VerdictReasons, word: VerdictValue) -> tuple[str, ...]:
    if word == "pass":
        return one.good
    told: list[str] = []
    for text in (*one.void, *one.harm, *one.doubt, *one.aside):
        if not any(text in before for before in told):  # a heavier reason may quote a note
            told.append(text)
    return tuple(told)
