"""One evaluation for the same packet and the same rules, shared by all observers.

The observers differ in the packets that they evaluate, and in how they combine the results; the evaluator is the same
pure function for all. With one evaluation instead of up to six, many more rule sets can be tried. ``Answers`` also
counts what the rules did to the packets, so that a run shows how much of the rule language it covered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from hitless.model.families import Address, Network
from hitless.model.packets import Packet
from hitless.model.rules import Ruleset
from hitless.observe import questions
from hitless.semantics import Outcome, Visit, evaluate, evaluate_reply


def _passive(visit: Visit) -> bool:
    """What happens to a packet that no rule does anything to."""
    return visit.kind in ("base", "policy accept")


class Answers:
    """The answers about one rule set. Reasons are left out."""

    def __init__(self) -> None:
        self._known: dict[Any, Outcome] = {}
        self._alive: tuple[Ruleset, ...] = ()

    @contextmanager
    def shared(self) -> Iterator[Answers]:
        """All questions of ``hitless.observe`` come here meanwhile."""
        with patch.multiple(questions, evaluate=self.out, evaluate_reply=self.back):
            yield self

    def begin(self, *rulesets: Ruleset) -> None:
        """Forget what was answered about other rules than these."""
        self._known.clear()
        self._alive = rulesets  # the tables' identities are keys, and must not be given out again

    def out(
        self,
        ruleset: Ruleset,
        packet: Packet,
        hooks: Sequence[str],
        *,
        unroutable: Sequence[Network] = (),
        nat: bool = True,
        expected: object = (),
        explain: bool = False,
    ) -> Outcome:
        """``semantics.evaluate``; chains that are ``expected`` make no difference to an answer without a reason."""
        key = (*map(id, ruleset.tables), packet, tuple(hooks), tuple(unroutable), nat)
        found = self._known.get(key)
        if found is None:
            found = evaluate(ruleset, packet, hooks, unroutable=unroutable, nat=nat, explain=False)
            self._known[key] = found
        return found

    def back(
        self,
        ruleset: Ruleset,
        packet: Packet,
        hooks: Sequence[str],
        address: Address | None = None,
        carried: Outcome | None = None,
        *,
        explain: bool = False,
    ) -> Outcome:
        """``semantics.evaluate_reply``, which of the outgoing packet uses only the connection's marks."""
        endings = carried.endings if carried is not None else ()
        marks = tuple(dict.fromkeys(ending.connection for ending in endings if ending.kind != "dropped"))
        key = (*map(id, ruleset.tables), packet, tuple(hooks), address, marks, "back")
        found = self._known.get(key)
        if found is None:
            found = evaluate_reply(ruleset, packet, hooks, address, carried, explain=False)
            self._known[key] = found
        return found

    def count(self, tally: Counter[str], passive: Callable[[Visit], bool] = _passive) -> None:
        """What rules did to the packets: of each kind, in how many rule sets. ``vacuous``: no rule did anything to any
        packet, so that the observers could not disagree."""
        paths = (ending.path for outcome in self._known.values() for ending in outcome.endings)
        met = {visit.kind for path in paths for visit in path if not passive(visit)}
        tally.update(f"rules did: {kind}" for kind in met)
        tally["vacuous"] += not met
