"""Gaps of the primary, and of forwarding, as intervals with an author on both ends.

Promise: pure: ``Tracker.see`` is told at each committed state which pod networks are cut off and why, and gives the
gap that this state closes. A gap of several networks of a family is one gap, from the first that was lost to the last
that came back. ``egress`` and ``forward`` ask the evaluator about witness packets; "cannot tell" is no gap, and is
reported as a doubt. Next stage: ``running``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from hitless.guard.learning import Place
from hitless.guard.places import Around
from hitless.model.events import Writer
from hitless.model.rules import Ruleset
from hitless.observe import Ask, Panel, Whom, questions
from hitless.observe.panels import How
from hitless.semantics import ChainName

__all__ = ["Asker", "Fate", "OpenGap", "Tracker"]


@dataclass(frozen=True, slots=True)
class Fate:
    """What the rules do to pods: networks that are cut off, and networks of which it cannot be told, with the
    ``reason``; ``partly``: networks of which some pods are cut off, with words for people. Of ``pods`` that were all
    asked about (0: they were not), ``kept`` are cut off. ``chains`` took part."""

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
    """Asks about the places of one family. It remembers who was carried last."""

    def __init__(self) -> None:
        self._panels: dict[tuple[str, Place], Panel] = {}

    def egress(self, others: Ruleset, places: Iterable[Place], around: Around, *, whole: bool = False) -> Fate:
        """Whether everybody else's nat rules carry the places' new flows. ``whole``: count all pods."""

        def question(whom: Whom) -> Ask:
            return lambda pod, explain: questions.nat(others, whom.of(pod), explain=explain)

        return self._fate("egress", others, places, around, question, whole=whole)

    def forward(self, others: Ruleset, places: Iterable[Place], around: Around, *, whole: bool = False) -> Fate:
        """Whether everybody else's rules drop the places' new flows on their way through the node, or the answers."""

        def question(whom: Whom) -> Ask:
            return lambda pod, explain: questions.through(others, whom.of(pod), whom.way, explain=explain)

        return self._fate("forward", others, places, around, question, whole=whole)

    def _fate(
        self,
        kind: str,
        others: Ruleset,
        places: Iterable[Place],
        around: Around,
        question: Callable[[Whom], Ask],
        *,
        whole: bool,
    ) -> Fate:
        cut: list[str] = []
        doubtful: list[str] = []
        reasons: list[tuple[str, How]] = []
        partly: list[str] = []
        pods = kept = 0
        chains: set[ChainName] = set()
        for place in places:
            whom = around.whom(place)
            panel = self._panels.setdefault((kind, place), Panel())
            poll = panel.poll(others, question(whom), whom.pods, whom.strangers, whom.far_ends, whole=whole)
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
        said = "; ".join(partly)
        return Fate(tuple(cut), tuple(doubtful), reason, how, said, pods, kept, frozenset(chains))


class Tracker:
    """The open gap of one family and kind."""

    def __init__(self) -> None:
        self.open: OpenGap | None = None
        self.count = 0

    def see(self, fate: Fate, t: int, writer: Writer | None) -> OpenGap | None:
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
