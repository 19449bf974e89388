"""plan(desired, observed): what to change, in which order, why, and the exact text that is sent.

Problem: every start state must reach the desired one without a moment in which a pod has no egress. Promise: a pure
function; nothing to do is an empty plan. Additions come before removals (the other backend's rules are removed last).
One transaction for each table: iptables-restore --noflush, or one nft batch. A chain that is only ours is declared
again as a whole, which no race can corrupt; where it contains foreign rules, ours are removed and inserted again around
them, and theirs are not mentioned at all. It never reads or writes. Next stage: ``hitless.agent`` applies it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hitless.errors import KernelError
from hitless.model import notation
from hitless.model.families import Backend, Family
from hitless.model.rules import Hook, Reject, Rule
from hitless.model.state import Holding, NodeState, Place, Purpose, is_owned
from hitless.plan.shadowing import accepts, first_stop, refuses_all
from hitless.plan.text import canonical, iptables_rule, nft_rule

__all__ = ["Plan", "PlanNote", "PlannedChange", "PlannedTransaction", "cleanup", "plan"]


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """One thing that is different, and why that matters."""

    place: Place
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class PlanNote:
    """Something that is left as it is, and that operators should know. ``refusal``: it keeps pods from the outside."""

    place: Place
    text: str
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class PlannedTransaction:
    """One commit: the program's input text. ``removes``: it only takes our own rules out of a backend not in use."""

    backend: Backend
    family: Family
    table: str
    text: str
    changes: tuple[PlannedChange, ...]
    removes: bool = False

    @property
    def program(self) -> str:
        """The program that reads the text."""
        return self.backend.writer(self.family)


@dataclass(frozen=True, slots=True)
class Plan:
    """Transactions in their order; notes about what stays."""

    transactions: tuple[PlannedTransaction, ...] = ()
    notes: tuple[PlanNote, ...] = ()

    @property
    def changes(self) -> tuple[PlannedChange, ...]:
        """All changes, in order."""
        return tuple(change for transaction in self.transactions for change in transaction.changes)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one place needs: lines of the transaction, reasons, and notes. Of a native table: how many objects it has,
    and whether this chain is removed."""

    place: Place
    lines: tuple[str, ...] = ()
    changes: tuple[PlannedChange, ...] = ()
    notes: tuple[PlanNote, ...] = ()
    objects: int = 0
    gone: bool = False


def plan(desired: NodeState, observed: NodeState, *, others: bool = True) -> Plan:
    """What turns ``observed`` into ``desired``: first all additions, then the removal of copies in other backends.

    Places that are in neither are not touched; a copy in another backend is removed only where the same purpose is
    desired, and without ``others`` not at all.
    """
    empty = Holding()
    makes = [_make(place, wanted, observed.places.get(place, empty)) for place, wanted in desired.places.items()]
    if not others:
        return Plan(_transactions(makes, removes=False), tuple(note for part in makes for note in part.notes))
    wanted_elsewhere = {(place.family, place.purpose): place for place in desired.places}
    removes = [
        _leave(place, held, wanted_elsewhere[place.family, place.purpose], desired)
        for place, held in observed.places.items()
        if place not in desired.places and (place.family, place.purpose) in wanted_elsewhere
    ]
    leftovers = [
        PlanNote(place, "not asked for by the configuration, and kept; hitless agent cleanup removes it")
        for place, held in observed.places.items()
        if (place.family, place.purpose) not in wanted_elsewhere and _stands(place, held)
    ]
    notes = tuple(note for part in (*makes, *removes) for note in part.notes) + tuple(leftovers)
    return Plan((*_transactions(makes, removes=False), *_transactions(removes, removes=True)), notes)


def cleanup(observed: NodeState) -> Plan:
    """What removes everything that is ours, everywhere; foreign rules stay, even inside our chains."""
    parts = [_remove(place, held, "cleanup was asked for") for place, held in observed.places.items()]
    return Plan(_transactions(parts, removes=True), tuple(note for part in parts for note in part.notes))


def _stands(place: Place, held: Holding) -> bool:
    return held.chain is not None or any(is_owned(rule, place) for rule in held.entry)


def _transactions(parts: Iterable[_Part], *, removes: bool) -> tuple[PlannedTransaction, ...]:
    """Parts of one table become one transaction, in the order in which the tables first appear."""
    tables: dict[tuple[Backend, Family, str], list[_Part]] = {}
    for part in parts:
        if part.lines:
            tables.setdefault((part.place.backend, part.place.family, part.place.names.table), []).append(part)
    found: list[PlannedTransaction] = []
    for (backend, family, table), members in tables.items():
        lines = [line for part in members for line in part.lines]
        if not backend.native:
            lines = [f"*{table}", *lines, "COMMIT"]
        elif not removes:
            lines = [f"add table {family.nft} {table}", *lines]
        elif sum(part.gone for part in members) == max(part.objects for part in members):
            lines = [f"delete table {family.nft} {table}"]
        changes = tuple(change for part in members for change in part.changes)
        found.append(PlannedTransaction(backend, family, table, "\n".join(lines) + "\n", changes, removes))
    return tuple(found)


# --- one place ---------------------------------------------------------------------------------------------------


def _make(place: Place, desired: Holding, held: Holding) -> _Part:
    if place.backend.native:
        return _make_native(place, desired, held)
    lines: list[str] = []
    changes: list[PlannedChange] = []
    notes: list[PlanNote] = []
    wanted = desired.chain or ()
    chain = place.names.chain
    reason, at, foreign = "", 0, tuple[Rule, ...]()
    if desired.chain is not None:
        reason, at, foreign = _chain_difference(place, wanted, held, desired)
    notes += [PlanNote(place, f"foreign rule kept in {chain}: {_show(rule, place)}") for rule in foreign]
    if reason:
        changes.append(PlannedChange(place, f"{chain}: {len(wanted)} rules", reason))
        if foreign:
            lines += _take_out(held.chain or (), place, chain)
            lines += [f"-I {chain} {at + 1 + n} {_text(rule)}" for n, rule in enumerate(wanted)]
        else:
            lines.append(f":{chain} - [0:0]")
            lines += [f"-A {chain} {_text(rule)}" for rule in wanted]
    entry = _entry_difference(place, desired, held)
    if entry:
        lines += _enter(place, desired, held)
        what = f"the jump to {chain}" if desired.chain is not None else f"{len(desired.entry)} rules"
        changes.append(PlannedChange(place, f"{place.names.base}: {what}", entry))
    elif desired.chain is not None:
        notes += _refusals(place, desired, held)
    return _Part(place, tuple(lines), tuple(changes), tuple(notes))


def _chain_difference(
    place: Place, wanted: Sequence[Rule], held: Holding, desired: Holding
) -> tuple[str, int, tuple[Rule, ...]]:
    """Why our chain is not right (empty: it is), where among the foreign rules ours belong, and the foreign rules."""
    if held.chain is None:
        return f"{place.names.chain} is not there", 0, ()
    if held.chain == wanted:
        return "", 0, ()
    owned = [is_owned(rule, place) for rule in held.chain]
    foreign = tuple(rule for rule, own in zip(held.chain, owned, strict=True) if not own)
    ours = [rule for rule, own in zip(held.chain, owned, strict=True) if own]
    # foreign rules before our first one stay there, unless they take packets away from ours
    first = owned.index(True) if ours else len(owned)
    stop = first_stop(foreign, place.purpose, desired.pods, refusals=True)
    at = min(first, len(foreign) if stop is None else stop)
    have, want = [canonical(rule) for rule in ours], [canonical(rule) for rule in wanted]
    if have != want:
        return _what_differs(have, want, len(foreign)), at, foreign
    blocking = first_stop(held.chain, place.purpose, desired.pods, refusals=False)
    last = max((n for n, own in enumerate(owned) if own), default=0)
    if blocking is not None and blocking < last and not owned[blocking]:
        return f"a foreign rule is in front of ours: {_show(held.chain[blocking], place)}", at, foreign
    return "", at, foreign


def _what_differs(have: Sequence[tuple[object, ...]], want: Sequence[tuple[object, ...]], foreign: int = 0) -> str:
    if not have:
        return "only foreign rules are in the chain" if foreign else "the chain is empty"
    if sorted(map(repr, have)) == sorted(map(repr, want)):
        return "the rules are in another order"
    missing = [rule for rule in want if rule not in have]
    extra = [rule for rule in have if rule not in want]
    if not missing and not extra:
        return "rules are there more than once"
    notation = [f"{len(missing)} rules are missing"] if missing else []
    notation += [f"{len(extra)} rules are of another configuration or version"] if extra else []
    return ", ".join(notation)


def _entry_difference(place: Place, desired: Holding, held: Holding) -> str:
    """Why the jump to our chain is not right; empty: it is."""
    names = place.names
    ours = [n for n, rule in enumerate(held.entry) if is_owned(rule, place)]
    if desired.chain is None:
        have, want = [canonical(held.entry[n]) for n in ours], [canonical(rule) for rule in desired.entry]
        if have != want:
            return f"{names.base} was flushed" if not ours else _what_differs(have, want)
    jumps = [n for n in ours if canonical(held.entry[n]) == canonical(desired.entry[0])]
    if not jumps:
        return f"no jump from {names.base}" + (", but rules of an older flannel" if ours else "")
    if len(ours) > len(desired.entry):
        return "the jump is there more than once" if len(ours) == len(jumps) else "rules of an older flannel beside it"
    stop = first_stop(held.entry, place.purpose, desired.pods, refusals=False)
    if stop is not None and stop < jumps[0]:
        return f"a rule in front of the jump takes the pods' flows: {_show(held.entry[stop], place)}"
    return ""


def _refusals(place: Place, desired: Holding, held: Holding) -> list[PlanNote]:
    """Rules that refuse all pods before an existing jump: an operator's decision, and left."""
    jump = next((n for n, rule in enumerate(held.entry) if is_owned(rule, place)), len(held.entry))
    return [
        PlanNote(
            place,
            f"{place.names.base} rule {number} ({'REJECT' if isinstance(rule.steps[-1], Reject) else 'DROP'}) refuses "
            f"every pod's new connections before rule {jump + 1} leads them to {place.names.chain}; it is not ours and "
            "stays",
            refusal=True,
        )
        for number, rule in enumerate(held.entry[:jump], 1)
        if refuses_all(rule, desired.pods)
    ]


def _enter(place: Place, desired: Holding, held: Holding) -> list[str]:
    """Lines that leave exactly the desired rules of ours (one jump) in the base chain, where they work."""
    base = place.names.base
    lines = _take_out(held.entry, place, base)
    rest = [rule for rule in held.entry if not is_owned(rule, place)]
    first = next((n for n, rule in enumerate(held.entry) if is_owned(rule, place)), len(rest))
    stop = first_stop(rest, place.purpose, desired.pods, refusals=True)
    at = first if stop is None else min(first, stop)
    texts = [_text(rule) for rule in desired.entry]
    if at >= len(rest):
        return lines + [f"-A {base} {text}" for text in texts]
    return lines + [f"-I {base} {at + 1 + n} {text}" for n, text in enumerate(texts)]


def _take_out(rules: Sequence[Rule], place: Place, chain: str) -> list[str]:
    """Delete what is ours, by specification: a number may be another rule's by the time the kernel reads it."""
    lines: list[str] = []
    for rule in rules:
        if is_owned(rule, place):
            text = iptables_rule(rule)
            if text is not None:
                lines.append(f"-D {chain} {text}")
    # a rule that we cannot write is deleted by its number among those left then, the highest first
    left = [rule for rule in rules if not is_owned(rule, place) or iptables_rule(rule) is None]
    numbers = [n for n, rule in enumerate(left, 1) if is_owned(rule, place)]
    return lines + [f"-D {chain} {number}" for number in reversed(numbers)]


def _make_native(place: Place, desired: Holding, held: Holding) -> _Part:
    names, family = place.names, place.family.nft
    wanted = desired.chain or ()
    reason, at, foreign = _chain_difference(place, wanted, held, desired)
    notes = tuple(PlanNote(place, f"foreign rule kept in {names.chain}: {_show(rule, place)}") for rule in foreign)
    target = f"{family} {names.table} {names.chain}"
    hook = desired.hook
    if held.chain is not None and held.hook != hook and not foreign:
        reason = f"the chain hangs at {_hook(held.hook)} instead of {_hook(hook)}"
    if not reason:
        return _Part(place, notes=notes)
    change = PlannedChange(place, f"{names.table} {names.chain}: {len(wanted)} rules", reason)
    texts = [_text(rule, place.family) for rule in wanted]
    lines: list[str] = []
    if foreign:
        handles = [rule.handle for rule in held.chain or () if is_owned(rule, place)]
        lines += [f"delete rule {target} handle {handle}" for handle in handles]
        before = foreign[at - 1].handle if at else None
        put = f"add rule {target} handle {before}" if at else f"insert rule {target}"
        lines += [f"{put} {text}" for text in reversed(texts)]
        return _Part(place, tuple(lines), (change,), notes)
    if held.chain is not None and held.hook != hook:
        lines += [f"flush chain {target}", f"delete chain {target}"]
    lines.append(f"add chain {target} {_hook(hook)}")
    lines.append(f"flush chain {target}")
    lines += [f"add rule {target} {text}" for text in texts]
    return _Part(place, tuple(lines), (change,), notes)


def _hook(hook: Hook | None) -> str:
    if hook is None:
        return "no hook"
    return f"{{ type {hook.type} hook {hook.hook} priority {hook.priority} ; policy {hook.policy} ; }}"


def _leave(place: Place, held: Holding, now: Place, desired: NodeState) -> _Part:
    """Remove our copy from a backend that is not used, unless it protects pods from a refusal there.

    A packet passes both backends: an ACCEPT in the new one does not overrule a DROP in the old one.
    """
    pods = desired.places[now].pods
    if place.purpose is Purpose.FORWARD and _stands(place, held) and accepts(place, held, pods):
        foreign = [rule for rule in held.entry if not is_owned(rule, place)]
        refusal = next((rule for rule in foreign if refuses_all(rule, pods)), None)
        behind = _show(refusal, place) if refusal else "policy DROP" if held.policy == "drop" else ""
        if behind:
            text = (
                f"kept beside {now.backend.value}, because {place.names.base} refuses forwarded packets there: {behind}"
            )
            return _Part(place, notes=(PlanNote(place, text),))
    return _remove(place, held, f"the rules are in {now.backend.value} now")


def _remove(place: Place, held: Holding, reason: str) -> _Part:
    if not _stands(place, held):
        return _Part(place)
    names = place.names
    chain = held.chain or ()
    foreign = [rule for rule in chain if not is_owned(rule, place)]
    notes = tuple(PlanNote(place, f"foreign rule kept in {names.chain}: {_show(rule, place)}") for rule in foreign)
    owned_inside = len(chain) > len(foreign)
    owned_entry = any(is_owned(rule, place) for rule in held.entry)
    if foreign and not owned_inside and not owned_entry:
        return _Part(place, notes=notes)
    change = PlannedChange(place, f"{names.chain}: removed", reason)
    if place.backend.native:
        target = f"{place.family.nft} {names.table} {names.chain}"
        if foreign:
            handles = [rule.handle for rule in chain if is_owned(rule, place)]
            lines = [f"delete rule {target} handle {handle}" for handle in handles]
            return _Part(place, tuple(lines), (change,), notes, held.objects)
        lines = [f"flush chain {target}", f"delete chain {target}"]
        return _Part(place, tuple(lines), (change,), notes, held.objects, True)
    lines = _take_out(held.entry, place, names.base)
    if foreign:
        lines += _take_out(chain, place, names.chain)
    elif held.chain is not None:
        lines += [f"-F {names.chain}", f"-X {names.chain}"]
    return _Part(place, tuple(lines), (change,), notes)


def _show(rule: Rule, place: Place) -> str:
    return notation.rule(rule, iptables=not place.backend.native)


def _text(rule: Rule, native: Family | None = None) -> str:
    text = iptables_rule(rule) if native is None else nft_rule(rule, native)
    if text is None:
        raise KernelError(
            "write",
            f"the rule {notation.rule(rule, iptables=native is None)}",
            reason="it cannot be written as a command",
        )
    return text
