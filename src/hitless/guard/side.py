"""One family of the node: the primary's rules, the standby's, and what follows from the difference.

Promise: ``Side.see`` turns an observed rule set into a decision and records, and costs next to nothing while the
chains that matter stay the same. It reads rules and asks the evaluator; it never touches the kernel. Next stage:
``running`` carries the decision out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from hitless.guard import gaps
from hitless.guard.deciding import Decider, Decision, Limits
from hitless.guard.meter import Meter
from hitless.guard.places import NOWHERE, Around
from hitless.guard.primaries import Primary
from hitless.guard.reasons import NOTHING, Code, Reason
from hitless.guard.rule_copy import Unclear, Unread
from hitless.guard.standby_rules import StandbyRules, WitnessPlace, learn
from hitless.guard.statements import Statement
from hitless.model.families import Family, Network
from hitless.model.rules import Ruleset
from hitless.model.standby import without_guard
from hitless.observe.questions import THROUGH
from hitless.observe.rules import Observation
from hitless.semantics import ChainName

__all__ = ["Observed", "Side", "Stated"]

Stated = Callable[[], Statement | None]
_HOOKS = (*THROUGH, "postrouting")


@dataclass(frozen=True, slots=True)
class Observed:
    """What an observation came to. ``gap`` and ``forward_gap`` are those that it ended; ``opened``: a gap began."""

    decision: Decision
    opened: bool = False
    gap: gaps.OpenGap | None = None
    forward_gap: gaps.OpenGap | None = None


@dataclass(slots=True)
class Side:
    """State of one family; ``withdrawn`` is the reason for which the standby is not to come back by itself."""

    family: Family
    primary: Primary
    networks: tuple[Network, ...] = ()
    around: Around = NOWHERE
    decider: Decider = field(default_factory=Decider)
    meter: Meter = field(default_factory=Meter)
    egress: gaps.GapTracker = field(default_factory=gaps.GapTracker)
    forward: gaps.GapTracker = field(default_factory=gaps.GapTracker)
    withdrawn: Reason | None = None
    why: Reason = NOTHING
    doubt: str = ""
    forward_doubt: str = ""
    partly: str = ""  # which pods of it are cut off although others are not
    pods: int = 0  # that were asked about, all of them
    kept: int = 0  # of which are cut off
    counted: bool = False  # whether all pods were asked about since the rules, or the pods, changed
    speak: Callable[[str], str] = str  # reasons with names for what the rules know by numbers
    _passed: tuple[object, ...] | None = None
    _standby: StandbyRules | None = None
    _unclear: str = ""
    _unread: bool = False
    _places: tuple[WitnessPlace, ...] = ()  # of the standby; after a withdrawal, of the last one
    _masquerade: bool = True  # false: the agent says that it does not translate, and only forwarding counts
    _asker: gaps.Asker = field(default_factory=gaps.Asker)
    _met: frozenset[ChainName] = frozenset()

    @classmethod
    def of(
        cls,
        family: Family,
        primary: Primary,
        networks: Iterable[Network],
        around: Around,
        installed: StandbyRules | None,
        limits: Limits | None = None,
        speak: Callable[[str], str] = str,
    ) -> Side:
        """A side that begins with what the kernel holds."""
        own = tuple(network for network in networks if network.version == (4 if family is Family.IPV4 else 6))
        return cls(family, primary, own, around, Decider(limits, installed), speak=speak)

    @property
    def installed(self) -> StandbyRules | None:
        """What the standby should be now."""
        return None if self.withdrawn else self.decider.installed

    @property
    def due(self) -> bool:
        """Whether the rules are to be evaluated again although they are the same."""
        return self._passed is None

    @property
    def open(self) -> bool:
        """Whether the primary has a gap now."""
        return self.egress.open is not None

    def see(self, observation: Observation, now: float, stated: Stated) -> Observed | None:
        """The rules of this moment; ``None`` when nothing that matters here has changed."""
        passed = tuple(_passed(observation.ruleset, self.family, self._met))
        if passed == self._passed:
            if observation.lost:
                self.meter.disturb(observation.t)
            return None
        self.meter.disturb(observation.t)
        self._learn(observation.ruleset)
        decision = self._decide(now, stated)
        return self.judge(observation, decision)

    def again(self, now: float, stated: Stated) -> Decision:
        """Decide once more about the same rules: time has passed, or the agent may have stated something."""
        return self._decide(now, stated)

    def ask_again(self) -> None:
        """Other pods are there, or another way out: the same rules may come to something else."""
        self._passed = None

    def count(self, ruleset: Ruleset) -> bool:
        """Evaluate all pods, if that was not done yet; whether there is something new to report."""
        if self.counted:
            return False
        others = without_guard(ruleset)
        fates = self._ask(others, whole=True)
        before, self.partly = self.partly, "; ".join(dict.fromkeys(fate.partly for fate in fates if fate.partly))
        self.pods, self.kept = max(fate.pods for fate in fates), max(fate.kept for fate in fates)
        self.counted = True
        self._met = self._met.union(*(fate.chains for fate in fates))
        if self._passed is not None:
            self._passed = tuple(_passed(ruleset, self.family, self._met))
        return self.partly != before

    def withdraw(self, reason: Reason) -> None:
        """Give up: the standby did, or might do, what the primary would not."""
        self.withdrawn = reason

    def _learn(self, ruleset: Ruleset) -> None:
        self._unclear, self._unread = "", False
        try:
            self._standby = learn(
                without_guard(ruleset),
                self.family,
                self.primary,
                networks=self.networks,
                uplink=self.around.uplink(self.family),
            )
        except Unread:
            self._unread = True
        except Unclear as unclear:
            self._standby, self._unclear = None, self.speak(str(unclear))
        else:
            named = tuple(replace(one, problem=self.speak(one.problem)) for one in self._standby.left_out)
            self._standby = replace(self._standby, left_out=named)
        legacy = any(chain.name.startswith("legacy.") for chain in (self._standby.chains if self._standby else ()))
        self.meter.polled = self.meter.polled or legacy

    def _decide(self, now: float, stated: Stated) -> Decision:
        reason = self.unclear
        if self._unread:  # no word for or against what stands
            decision = Decision("keep", Reason(Code.RULES_UNREADABLE))
        elif self._standby is None or reason:
            decision = self.decider.unclear(reason, now)
        else:
            decision = self.decider.see(self._standby, now, stated)
        self.why = decision.why
        before = self._masquerade
        if self.decider.installed is not None:
            self._places, self._masquerade = self.decider.installed.places, True
        elif decision.why.code in (Code.SWITCHED_OFF, Code.NOTHING_TO_LEARN_FROM):
            self._masquerade = decision.why.code is not Code.SWITCHED_OFF
        if self._masquerade != before:
            self.ask_again()
        return decision

    def judge(self, observation: Observation, decision: Decision) -> Observed:
        """What the rules do to what is guarded since ``decision``."""
        t, writer = observation.t, observation.writer
        others = without_guard(observation.ruleset)
        fate, onward = self._ask(others)
        self.counted = False
        self._met = fate.chains | onward.chains
        self._passed = tuple(_passed(observation.ruleset, self.family, self._met))
        self.doubt = f"{', '.join(fate.doubtful)}: {fate.reason}" if fate.doubtful else ""
        self.forward_doubt = f"{', '.join(onward.doubtful)}: {onward.reason}" if onward.doubtful else ""
        was_open = self.open
        gap = self.egress.see(fate, t, writer)
        return Observed(decision, self.open and not was_open, gap, self.forward.see(onward, t, writer))

    def _ask(self, others: Ruleset, *, whole: bool = False) -> tuple[gaps.PrimaryFate, gaps.PrimaryFate]:
        """What the rules do to egress and to forwarding. A withdrawn standby's places are still evaluated."""
        translated = self._places if self._masquerade else ()
        return (
            self._asker.egress(others, translated, self.around, whole=whole),
            self._asker.forward(others, self._places, self.around, whole=whole),
        )

    @property
    def unclear(self) -> str:
        """Why the primary's rules have no exact copy; empty when they have (or there are none)."""
        if self._unclear or self._standby is None or self._standby.places:
            return self._unclear
        about = (one for one in self._standby.left_out if any(one.concerns(*chain) for chain in self.primary.chains))
        return next(map(str, about), "")

    @property
    def whole(self) -> bool:
        """Whether the standby is what the primary's rules mean now."""
        return self._standby is not None and self.installed is not None and self._standby == self.installed


def _passed(ruleset: Ruleset, family: Family, met: Collection[ChainName]) -> Iterator[object]:
    """What the answers and the standby were made of, as values that compare cheaply: where base chains stand, the
    chains that the packets met, and all that is copied."""
    yield None if ruleset.node is None else ruleset.node.version
    for table in without_guard(ruleset).tables:
        if table.family not in (family.nft, "inet"):
            continue
        names = {chain for nft, name, chain in met if (nft, name) == (table.family, table.name)}
        for name, hook in table.hooks():
            if hook.hook in _HOOKS:
                yield table.family, table.name, table.legacy, name, hook
            if hook.type == "nat" and hook.hook == "postrouting":
                names |= table.reachable(name)
        yield from ((name, table.version(name)) for name in sorted(names) if name in table.chains)
