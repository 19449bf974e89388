"""Would pods' packets get out, and would they be answered? The question, put to every committed rule set.

Problem: a chain's text proves nothing, and neither does one packet of one pod. Promise: ``Judge.answer`` asks about the
pods that are there, by several packets each, and about an address that none has; what their answers come to is decided
in ``hitless.observe``, for the guard too. A change must be judged at once, so that ``answer`` ends with the first pod
that is carried; ``count`` asks about all of them, and says how many are not. What it never does: look at rules itself.
Next stage: ``watching``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hitless.model.families import Network, family_of
from hitless.model.rules import Ruleset
from hitless.observe import Fate, Panel, Pod, Poll, Whom, questions

__all__ = ["Judge"]


class Judge:
    """Answers for one pod network. ``translators`` are the chains (table, name) that translate on a healthy node: where
    one is gone, that is the reason to tell. ``whom`` may be set again at any time."""

    def __init__(self, network: Network, whom: Whom, translators: Sequence[tuple[str, str]] = ()) -> None:
        self.network = network
        self.whom = whom
        self._translators = tuple(translators)
        self._panel = Panel()

    def answer(self, ruleset: Ruleset) -> Poll:
        """Whether the network is carried: as soon as that is settled."""
        return self._poll(ruleset, whole=False)

    def count(self, ruleset: Ruleset) -> Poll:
        """The same, and of how many pods that is so."""
        return self._poll(ruleset, whole=True)

    def _poll(self, ruleset: Ruleset, *, whole: bool) -> Poll:
        whom = self.whom

        def ask(pod: Pod, explain: bool) -> Fate:
            return questions.egress(
                ruleset,
                whom.of(pod),
                whom.way,
                unroutable=(self.network,),
                expected=self._translators,
                explain=explain,
            )

        poll = self._panel.poll(ruleset, ask, whom.pods, whom.strangers, whom.far_ends, whole=whole)
        if poll.state == "not_carried" and poll.how == "untranslated":
            gone = self._gone(ruleset)
            if gone:
                return replace(poll, reason=f"there is no chain {gone}, and no other chain translates it")
        return poll

    def _gone(self, ruleset: Ruleset) -> str:
        """A translating chain that its table lacks; empty when all are there, or the table itself is not."""
        families = (family_of(self.network).nft, "inet")
        for name, chain in self._translators:
            tables = [table for table in ruleset.tables if table.name == name and table.family in families]
            if tables and all(chain not in table.chains for table in tables):
                return chain
        return ""
