"""Do one rule set's rules carry pods' packets out, and the answers back?

Problem: a chain's text proves nothing, and neither does one packet of one pod. Promise: ``Judge.answer`` evaluates
several packets of each pod that is there, and of an address that none has; ``panels`` combines the results. The watch
and the agent both use it, so that they give the same answer. A change must be judged at once, so that ``answer`` ends
with the first pod that is carried; ``count`` evaluates all of them, and reports how many are not. Pure. Next stages:
``watch``, ``agent``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hitless.model.families import Network, family_of
from hitless.model.rules import Ruleset
from hitless.observe import questions
from hitless.observe.panels import Fate, Panel, Poll
from hitless.observe.pods import LocalPod
from hitless.observe.witnesses import Witnesses

__all__ = ["Judge"]


class Judge:
    """Answers for one pod network. ``translators`` are the chains (table, name) that translate on a healthy node: where
    one is gone, that is the reported reason. ``witnesses`` may be replaced at any time. Without ``masquerade`` only
    refusals count, whatever source address packets leave with."""

    def __init__(
        self,
        network: Network,
        witnesses: Witnesses,
        translators: Sequence[tuple[str, str]] = (),
        *,
        masquerade: bool = True,
    ) -> None:
        self.network = network
        self.witnesses = witnesses
        self._masquerade = masquerade
        self._translators = tuple(translators)
        self._panel = Panel()

    def answer(self, ruleset: Ruleset) -> Poll:
        """Whether the network is carried: as soon as that is settled."""
        return self._poll(ruleset, whole=False)

    def count(self, ruleset: Ruleset) -> Poll:
        """The same, with the number of pods that are not."""
        return self._poll(ruleset, whole=True)

    def _poll(self, ruleset: Ruleset, *, whole: bool) -> Poll:
        witnesses = self.witnesses

        def ask(pod: LocalPod, explain: bool) -> Fate:
            if not self._masquerade:
                return questions.through(ruleset, witnesses.of(pod), witnesses.uplink, explain=explain)
            return questions.egress(
                ruleset,
                witnesses.of(pod),
                witnesses.uplink,
                unroutable=(self.network,),
                expected=self._translators,
                explain=explain,
            )

        poll = self._panel.poll(ruleset, ask, witnesses.pods, witnesses.unused, witnesses.far_ends, whole=whole)
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
