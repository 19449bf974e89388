"""Combines the results of several pods to one for the network: the one place that decides. Pure.

Problem: one pod that a network policy isolates is not an outage, and an outage of all pods stays one, also where an
unused address would be carried. Promise: ``Panel.poll`` evaluates every pod that is there, and unused addresses, one of
which the next pod will have:

- no pod is carried: *not carried*; one is enough for *carried*; else *cannot tell*;
- some are and others are not: carried, and ``Poll.partly`` reports how many are not and by which rule;
- there is no pod: the unused addresses decide in the same manner.

Pods that no rule on their path distinguishes are evaluated once. It never walks rules itself. Next stages:
``watch``, ``guard``, ``agent``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hitless.model.families import Address
from hitless.model.rules import Ruleset
from hitless.observe.likeness import Likeness
from hitless.observe.pods import LocalPod
from hitless.semantics import ChainName, State

__all__ = ["Ask", "Fate", "How", "Panel", "Poll"]

How = Literal["", "dropped", "rejected", "untranslated", "unanswered"]

_LOST = {"untranslated": " not translated", "unanswered": " without answers"}
_NAMED = 2
"""Chains that a sentence names at most."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one pod's packets. ``by``: the chain that drops them, empty when they are lost otherwise; ``how``
    they are lost. ``replies``: chains whose rules saw an answer to the pod."""

    state: State
    reason: str
    chains: frozenset[ChainName] = frozenset()
    replies: frozenset[ChainName] = frozenset()
    by: str = ""
    how: How = ""

    def saying(self, reason: str) -> Fate:
        """The same with another reason."""
        return replace(self, reason=reason)

    def with_chains(self, chains: Iterable[ChainName], replies: Iterable[ChainName]) -> Fate:
        """The same with the chains that took part."""
        return replace(self, chains=frozenset(chains), replies=frozenset(replies))


Ask = Callable[[LocalPod, bool], Fate]
"""``ask(pod, explain)``: without ``explain`` the reason may be empty, and the evaluation is cheaper."""


@dataclass(frozen=True, slots=True)
class Poll:
    """The combined result. ``pods``: how many were evaluated (0: there is none, or the state was known before all
    were); ``kept`` of them are not carried, of ``unknown`` it is not known. ``partly`` is the sentence for a network of
    which some pods, or the next one, are not carried. ``chains`` took part."""

    state: State
    reason: str
    chains: frozenset[ChainName]
    pods: int = 0
    kept: int = 0
    unknown: int = 0
    partly: str = ""
    whole: bool = True
    addresses: tuple[str, ...] = ()  # of the pods that are not carried
    how: How = ""  # as of ``Fate``: why the network is not carried


class Panel:
    """Evaluates the pods of one network; the one that was carried last comes first the next time."""

    def __init__(self) -> None:
        self._last: LocalPod | None = None

    def poll(
        self,
        ruleset: Ruleset,
        ask: Ask,
        pods: Sequence[LocalPod],
        unused: Sequence[LocalPod],
        towards: Sequence[Address],
        *,
        whole: bool = True,
    ) -> Poll:
        """Evaluate. Not ``whole``: end with the first pod that is carried, because that decides the state. ``towards``:
        the far ends that ``ask`` uses."""
        asking = _Asking(ruleset, ask, towards)
        order = list(pods)
        if self._last in order:
            order.remove(self._last)
            order.insert(0, self._last)
        fates: list[tuple[LocalPod, Fate]] = []
        for pod in order:
            fate = asking.fate(pod)
            fates.append((pod, fate))
            if fate.state == "carried":
                self._last = pod
                if not whole:
                    return Poll("carried", asking.why(pod, fate), asking.chains, whole=False)
        if not pods:
            return self._without_pods(asking, unused)
        return _sum(asking, fates, self._next(asking, fates, unused))

    def _without_pods(self, asking: _Asking, unused: Sequence[LocalPod]) -> Poll:
        fates = [(address, asking.fate(address)) for address in unused]
        for state in ("carried", "cannot_tell", "not_carried"):
            for address, fate in fates:
                if fate.state == state:
                    return Poll(fate.state, asking.why(address, fate), asking.chains, how=fate.how)
        return Poll("cannot_tell", "there is no witness packet", frozenset())

    def _next(
        self, asking: _Asking, fates: Sequence[tuple[LocalPod, Fate]], unused: Sequence[LocalPod]
    ) -> tuple[LocalPod, Fate] | None:
        """The fate of an unused address: the best one, because a rule may match any of them."""
        like = next((pod for pod, fate in fates if fate.state == "carried"), fates[0][0])
        found: tuple[LocalPod, Fate] | None = None
        for address in unused:
            # its link does not exist yet: rules that match links are evaluated as for a pod that is carried
            newcomer = address if address.interface else address._replace(interface=like.interface)
            fate = asking.fate(newcomer)
            if fate.state == "carried":
                return newcomer, fate
            if found is None or (found[1].state == "not_carried" and fate.state == "cannot_tell"):
                found = newcomer, fate
        return found


class _Asking:
    """Evaluates a pod, unless the rules do not distinguish it from one that was evaluated."""

    def __init__(self, ruleset: Ruleset, ask: Ask, towards: Sequence[Address]) -> None:
        self._ask = ask
        self._likeness = Likeness(ruleset, towards)
        self._asked: list[tuple[LocalPod, Fate]] = []
        self._known: dict[object, Fate] = {}

    def fate(self, pod: LocalPod) -> Fate:
        key = self._likeness.key(pod)
        if (known := self._known.get(key)) is not None:
            return known
        fate = self._ask(pod, False)
        self._asked.append((pod, fate))
        if self._likeness.learn(pod, fate.chains, fate.replies):
            self._known = {self._likeness.key(asked): known for asked, known in self._asked}
        else:
            self._known[key] = fate
        return fate

    def why(self, pod: LocalPod, fate: Fate) -> str:
        """The reason, worked out only for what is reported."""
        return fate.reason or self._ask(pod, True).reason

    @property
    def chains(self) -> frozenset[ChainName]:
        """The chains of all evaluations: a change elsewhere changes no result."""
        return frozenset().union(*(fate.chains | fate.replies for _, fate in self._asked))


def _sum(asking: _Asking, fates: Sequence[tuple[LocalPod, Fate]], newcomer: tuple[LocalPod, Fate] | None) -> Poll:
    carried = [one for one in fates if one[1].state == "carried"]
    kept = [one for one in fates if one[1].state == "not_carried"]
    unknown = [one for one in fates if one[1].state == "cannot_tell"]
    after = newcomer[1].state if newcomer is not None else "cannot_tell"
    addresses = tuple(str(pod.address) for pod, _ in kept)
    facts = (asking.chains, len(fates), len(kept), len(unknown))
    if carried:
        parts = [_kept(asking, kept, len(fates))] if kept else []
        if unknown:
            parts.append(f"of {_count(len(unknown), len(fates))} the answer is not known: {asking.why(*unknown[0])}")
        if newcomer is not None and after == "not_carried":
            parts.append(f"a pod that comes next ({newcomer[0].address}) would not be carried: {asking.why(*newcomer)}")
        return Poll("carried", asking.why(*carried[0]), *facts, "; ".join(parts), addresses=addresses)
    if unknown:
        reason = asking.why(*unknown[0])
        more = f"; {_kept(asking, kept, len(fates))}" if kept else ""
        return Poll("cannot_tell", f"{reason}{more}", *facts, addresses=addresses)
    reason = asking.why(*kept[0])
    if after == "carried":
        what = "the only pod" if len(kept) == 1 else f"all {len(kept)} pods"
        reason = f"{reason} (of {what} here; a pod without such a rule would be carried)"
    return Poll("not_carried", reason, *facts, addresses=addresses, how=kept[0][1].how)


def _count(some: int, whole: int) -> str:
    return f"{some} of {whole} pods"


def _kept(asking: _Asking, kept: Sequence[tuple[LocalPod, Fate]], whole: int) -> str:
    """E.g. ``3 of 7 pods are kept in by KUBE-POD-FW-ABC (10.42.0.7: KUBE-POD-FW-ABC rule 3 … rejects it)``."""
    pod, fate = kept[0]
    verb = "is" if len(kept) == 1 else "are"
    chains = list(dict.fromkeys(each.by for _, each in kept if each.by))
    if len(chains) > _NAMED:
        by = f" kept in by {', '.join(chains[:_NAMED])} and {len(chains) - _NAMED} more"
    else:
        by = f" kept in by {' and '.join(chains)}" if chains else _LOST.get(fate.how, " not carried")
    return f"{_count(len(kept), whole)} {verb}{by} ({pod.address}: {asking.why(pod, fate)})"
