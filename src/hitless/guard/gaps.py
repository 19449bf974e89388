"""Gaps of the primary, and of forwarding, as intervals with an author on both ends.

Promise: pure: ``GapTracker.see`` gets, for each committed state, the pod networks that are cut off and why, and gives
the gap that this state closes. A gap of several networks of a family is one gap, from the first that was lost to the
last that came back. ``egress`` and ``forward`` ask the evaluator about witness packets; "cannot tell" is no gap, and is
reported as a doubt. Next stage: ``running``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from hitless.guard.places import Around
from hitless.guard.standby_rules import WitnessPlace
from hitless.model.events import Writer
from hitless.model.rules import Ruleset
from hitless.observe import Fate as PodFate
from hitless.observe import LocalPod, Panel, Poll, Witnesses, questions
from hitless.observe.panels import How
from hitless.semantics import ChainName

__all__ = ["Asker", "GapTracker", "OpenGap", "PrimaryFate"]

Kind = Literal["egress", "forward"]
_KINDS: tuple[Kind, ...] = ("egress", "forward")


@dataclass(frozen=True, slots=True)
class PrimaryFate:
    """What the rules do to pods: networks that are cut off, and networks whose state is not known, with the
    ``reason``; ``partly``: networks of which some pods are cut off, with a text for users. Of ``pods`` that were all
    evaluated (0: they were not), ``kept`` are cut off. ``chains`` took part."""

    cut: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    reason: str = ""
    how: How = ""
    partly: str = ""
    pods: int = 0
    kept: int = 0
    chains: frozenset[ChainName] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, slots=True)
class OpenGap:
    """A gap that goes on."""

    begin: int
    networks: tuple[str, ...]
    reason: str
    opened_by: Writer | None
    how: How = ""


class Asker:
    """Evaluates the places of one family. It remembers which pod was carried last, to begin with it."""

    def __init__(self) -> None:
        self._panels: dict[tuple[str, WitnessPlace], Panel] = {}
        self._answered: tuple[Ruleset, dict[tuple[str, WitnessPlace, bool], tuple[Witnesses, Poll]]] = (Ruleset(()), {})
        self._version = 0

    def egress(
        self, others: Ruleset, places: Iterable[WitnessPlace], around: Around, *, whole: bool = False
    ) -> PrimaryFate:
        """Whether the NAT rules of all other programs carry the places' new flows. ``whole``: count all pods."""
        return self._fate("egress", others, places, around, whole=whole)

    def forward(
        self, others: Ruleset, places: Iterable[WitnessPlace], around: Around, *, whole: bool = False
    ) -> PrimaryFate:
        """Whether other programs' rules drop the places' new flows through the node, or the replies."""
        return self._fate("forward", others, places, around, whole=whole)

    def _fate(
        self, kind: Kind, others: Ruleset, places: Iterable[WitnessPlace], around: Around, *, whole: bool
    ) -> PrimaryFate:
        cut: list[str] = []
        doubtful: list[str] = []
        reasons: list[tuple[str, How]] = []
        partly: list[str] = []
        pods = kept = 0
        chains: set[ChainName] = set()
        for place in places:
            witnesses = around.witnesses(place)
            poll = self._of_kind(kind, others, place, witnesses, whole=whole)
            pods, kept = pods + poll.pods, kept + poll.kept
            chains |= poll.chains
            if poll.state == "not_carried":
                cut.append(str(place.network))
                reasons.append((poll.reason, poll.how))
            elif poll.state == "cannot_tell":
                doubtful.append(str(place.network))
                reasons.append((poll.reason, ""))
            elif poll.partly:
                partly.append(f"{place.network}: {poll.partly}")
        reason, how = next(iter(reasons), ("", ""))
        detail = "; ".join(partly)
        return PrimaryFate(tuple(cut), tuple(doubtful), reason, how, detail, pods, kept, frozenset(chains))

    def _of_kind(self, kind: Kind, others: Ruleset, place: WitnessPlace, witnesses: Witnesses, *, whole: bool) -> Poll:
        """``_part`` of this kind, with the chains of all that was evaluated."""
        poll = self._part(kind, others, place, witnesses, whole=whole)
        asked = (each for (_, where, _), (_, each) in self._answered[1].items() if where == place)
        return replace(poll, chains=poll.chains.union(*(each.chains for each in asked)))

    def _part(self, kind: Kind, others: Ruleset, place: WitnessPlace, witnesses: Witnesses, *, whole: bool) -> Poll:
        """The answer of the watch, and where that is no "carried" the part of it that is of this kind.

        The parts are evaluated by themselves, as both may be lost at once; but a part lacks what the whole has: a mark
        that another part sets may decide which nat rule matches. So a part never reports more than the whole.
        """
        answer = self._poll("whole", others, place, witnesses, whole=whole)
        if answer.state == "carried":
            return answer
        parts: dict[Kind, Poll] = {each: self._poll(each, others, place, witnesses, whole=whole) for each in _KINDS}
        part, other = parts[kind], parts["forward" if kind == "egress" else "egress"]
        if answer.state == "not_carried":
            fallen = kind == ("egress" if answer.how == "untranslated" else "forward")
            if part.state == "not_carried":
                return part
            return answer if fallen and other.state != "not_carried" else replace(part, state="carried")
        if part.state != "carried" or (kind == "egress" and other.state == "carried"):
            return answer
        return part

    def _poll(self, name: str, others: Ruleset, place: WitnessPlace, witnesses: Witnesses, *, whole: bool) -> Poll:
        """Evaluate, unless the answer for these rules and these pods is known."""
        if self._answered[0] is not others or (others.node is not None and self._version != others.node.version):
            self._answered, self._version = (others, {}), others.node.version if others.node is not None else 0
        known = self._answered[1]
        if (found := known.get((name, place, whole))) is not None and found[0] == witnesses:
            return found[1]

        def ask(pod: LocalPod, explain: bool) -> PodFate:
            if name == "egress":
                return questions.nat(others, witnesses.of(pod), explain=explain)
            if name == "forward":
                return questions.through(others, witnesses.of(pod), witnesses.uplink, explain=explain)
            return questions.egress(
                others, witnesses.of(pod), witnesses.uplink, unroutable=(place.network,), explain=explain
            )

        panel = self._panels.setdefault((name, place), Panel())
        poll = panel.poll(others, ask, witnesses.pods, witnesses.unused, witnesses.far_ends, whole=whole)
        known[name, place, whole] = (witnesses, poll)
        return poll


class GapTracker:
    """The open gap of one family and kind."""

    def __init__(self) -> None:
        self.open: OpenGap | None = None
        self.count = 0

    def see(self, fate: PrimaryFate, t: int, writer: Writer | None) -> OpenGap | None:
        """The state from ``t`` on; returns the gap that it ends."""
        if fate.cut and self.open is None:
            self.count += 1
            self.open = OpenGap(t, fate.cut, fate.reason, writer, fate.how)
            return None
        if fate.cut and self.open is not None:
            networks = tuple(dict.fromkeys((*self.open.networks, *fate.cut)))
            self.open = replace(self.open, networks=networks)
            return None
        ended, self.open = self.open, None
        return ended
