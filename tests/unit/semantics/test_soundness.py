"""Properties: whatever is not known, a definite answer is right for every way in which it could be.

A run that could not have failed proves nothing: the answer was "cannot tell", or there was nothing to exchange. Each
property says so of each run, and fails when more than its share of runs were of that kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from ipaddress import ip_address
from itertools import product
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.semantics.random_rules import POD_IN, UPLINK, random_iptables, random_nft

from hitless.model.families import Family
from hitless.model.packets import Packet
from hitless.model.rules import Comment, Mark, Opaque, Protocol, Rule, Ruleset, SetMark, Step, Table, UnknownMark
from hitless.semantics import evaluate

NEVER, ALWAYS = Protocol(255), Comment("always")
PACKETS = {
    Family.IPV4: Packet(ip_address("10.42.1.10"), ip_address("198.51.100.1"), iif=POD_IN, oif=UPLINK),
    Family.IPV6: Packet(ip_address("fd42:0:0:1::10"), ip_address("2001:db8:ffff::1"), iif=POD_IN, oif=UPLINK),
}

seeds = st.integers(0, 2**32)


def proving(examples: int, vacuous: float) -> Callable[[Callable[[int], bool]], Callable[[], None]]:
    """A test of a property that takes a seed and returns whether the run could have failed; at most the share
    ``vacuous`` of runs may not."""

    def made_of(run: Callable[[int], bool]) -> Callable[[], None]:
        def test() -> None:
            runs = Counter[bool]()

            @settings(max_examples=examples, deadline=None)
            @given(seeds)
            @wraps(run)
            def holds(seed: int) -> None:
                runs[run(seed)] += 1

            holds()
            assert runs[False] <= vacuous * runs.total(), f"{runs[False]} of {runs.total()} runs proved nothing"

        test.__doc__ = run.__doc__
        return test

    return made_of


def made(seed: int) -> tuple[Family, tuple[Table, ...], Random]:
    random = Random(seed)
    family = random.choice(list(Family))
    make = random.choice((random_iptables, random_nft))
    return family, make(random, family), random


def with_rules(tables: tuple[Table, ...], change: dict[tuple[int, str, int], Rule]) -> Ruleset:
    """The tables with some rules (by table, chain and place) exchanged."""
    return Ruleset(
        tuple(
            replace(
                table,
                chains={
                    name: replace(
                        chain,
                        rules=tuple(change.get((number, name, at), rule) for at, rule in enumerate(chain.rules)),
                    )
                    for name, chain in table.chains.items()
                },
            )
            for number, table in enumerate(tables)
        )
    )


def places(tables: tuple[Table, ...]) -> Iterator[tuple[tuple[int, str, int], Rule]]:
    for number, table in enumerate(tables):
        for name, chain in table.chains.items():
            for at, rule in enumerate(chain.rules):
                yield (number, name, at), rule


@proving(100, vacuous=0.5)
def test_a_definite_answer_holds_however_opaque_conditions_turn_out(seed: int) -> bool:
    family, tables, random = made(seed)
    found = dict(places(tables))
    chosen = random.sample(sorted(found), min(3, len(found)))

    def guarded(guards: dict[tuple[int, str, int], Step]) -> Ruleset:
        return with_rules(tables, {at: Rule((step, *found[at].steps)) for at, step in guards.items()})

    packet = PACKETS[family]
    answer = evaluate(guarded({at: Opaque("who knows") for at in chosen}), packet).state
    ways: list[tuple[Step, ...]] = list(product((NEVER, ALWAYS), repeat=len(chosen)))
    possible = {evaluate(guarded(dict(zip(chosen, way, strict=True))), packet).state for way in ways}
    if answer == "cannot_tell":
        return False
    assert possible == {answer}
    return True


@proving(80, vacuous=0.5)
def test_a_definite_answer_holds_for_every_mark_that_an_unknown_mark_may_be(seed: int) -> bool:
    family, tables, random = made(seed)
    found = [(at, rule) for at, rule in places(tables) if any(isinstance(step, SetMark) for step in rule.steps)]
    if not found:
        return False
    at, rule = random.choice(found)
    asked = {step.mask for _, other in places(tables) for step in other.steps if isinstance(step, Mark)}
    bits = [1 << bit for bit in range(32) if any(mask >> bit & 1 for mask in asked)][:4]

    def marking(step: Step) -> Ruleset:
        return with_rules(tables, {at: Rule((*(s for s in rule.steps if not isinstance(s, SetMark)), step))})

    packet = PACKETS[family]
    answer = evaluate(marking(UnknownMark(sum(bits))), packet).state
    possible = {
        evaluate(marking(SetMark(sum(chosen), sum(bits))), packet).state
        for chosen in product(*((0, bit) for bit in bits))
    }
    if answer == "cannot_tell":
        return False
    assert possible == {answer}
    return True


@proving(80, vacuous=0.5)
def test_the_order_in_which_tables_are_listed_does_not_matter(seed: int) -> bool:
    family, tables, random = made(seed)
    shuffled = random.sample(tables, len(tables))
    if tuple(shuffled) == tables:
        shuffled.reverse()
    packet = PACKETS[family]
    first, second = evaluate(Ruleset(tables), packet), evaluate(Ruleset(tuple(shuffled)), packet)
    assert first.state == second.state
    assert {ending.kind for ending in first.endings} == {ending.kind for ending in second.endings}
    return len(tables) > 1


@proving(80, vacuous=0.5)
def test_chains_that_were_not_named_had_no_part_in_the_answer(seed: int) -> bool:
    """Watchers re-evaluate only when a named chain changes: so no other may matter."""
    family, tables, _ = made(seed)
    packet = PACKETS[family]
    outcome = evaluate(Ruleset(tables), packet)
    emptied = {
        at: Rule((Opaque("changed"),))
        for at, _ in places(tables)
        if (tables[at[0]].family, tables[at[0]].name, at[1]) not in outcome.chains
    }
    assert evaluate(with_rules(tables, emptied), packet).state == outcome.state
    return bool(emptied)
