"""Whether the first answer of a flow that is carried comes back to its pod."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from hitless.model.packets import Packet
from hitless.model.rules import (
    Accept,
    AddrType,
    Chain,
    ConntrackTemplate,
    CtState,
    Destination,
    DestinationPort,
    Drop,
    Hook,
    InInterface,
    Mark,
    Masquerade,
    NoTrack,
    Opaque,
    OutInterface,
    Reject,
    ReversePath,
    Rule,
    Ruleset,
    SetMark,
    Source,
    Step,
    Table,
    TcpFlags,
    UnknownMark,
)
from hitless.semantics import evaluate, evaluate_reply

PODS = ip_network("10.42.0.0/16")
OUT = Packet(ip_address("10.42.1.10"), ip_address("198.51.100.77"), iif="cni0", oif="eth0")
ESTABLISHED = CtState(frozenset({"ESTABLISHED"}))


def base(hook: str, *rules: tuple[Step, ...], priority: int = 0, policy: str = "accept", kind: str = "filter") -> Table:
    made = Chain(hook.upper(), tuple(map(Rule, rules)), Hook(kind, hook, priority, policy))
    return Table("ip", f"{kind}{priority}", {made.name: made})


def asked(*tables: Table, address: str = "", packet: Packet = OUT) -> tuple[str, str]:
    outcome = evaluate_reply(Ruleset(tables), packet, address=ip_address(address) if address else None)
    return outcome.state, outcome.reason


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (base("forward", (Source(PODS), Accept()), policy="drop"), "dropped by the policy of FORWARD (ip filter0)"),
        (base("forward", (ESTABLISHED, Drop())), "dropped by FORWARD rule 1 (ip filter0) (ct state established)"),
        (base("forward", (InInterface("eth0"), Reject())), 'rejected by FORWARD rule 1 (ip filter0) (iifname "eth0")'),
        (base("prerouting", (InInterface("eth0"), NoTrack()), priority=-300), "hides them from conntrack"),
        (base("prerouting", (Destination(PODS), Drop()), priority=-99), "PREROUTING rule 1 (ip filter-99)"),
        (base("prerouting", (ESTABLISHED, Drop()), priority=-150), "PREROUTING rule 1 (ip filter-150)"),
        (base("prerouting", (AddrType("dst", frozenset({"LOCAL"})), Drop()), priority=-300), "dropped by PREROUTING"),
        (base("postrouting", (OutInterface("cni0"), Drop()), priority=-150), "dropped by POSTROUTING rule 1"),
        (base("forward", (TcpFlags(0x12, 0x12), Drop())), "dropped by FORWARD rule 1"),
    ],
)
def test_answers_that_are_lost_and_by_which_rule(table: Table, reason: str) -> None:
    state, words = asked(table)
    assert state == "not_carried"
    assert words.startswith("answers are ") and reason in words


@pytest.mark.parametrize(
    "table",
    [
        base("forward", (ESTABLISHED, Accept()), (Drop(),)),
        base("forward", (Destination(PODS), Accept()), policy="drop"),
        base("forward", (CtState(frozenset({"NEW", "INVALID"})), Drop())),
        base("forward", (CtState(frozenset({"SNAT"})), Accept()), policy="drop"),
        base("forward", (TcpFlags(0x02, 0x17), Drop())),
        base("prerouting", (Destination(PODS), Drop()), priority=-150),
        base("prerouting", (ReversePath(negated=True), Drop()), priority=-150),
        base("prerouting", (CtState(frozenset({"ESTABLISHED"})), Drop()), priority=-300),
        base("input", (Drop(),), policy="drop"),
        base("postrouting", (Masquerade(),), priority=100, kind="nat"),
        base("prerouting", (Drop(),), priority=-100, kind="nat"),
        base("forward", (Mark(0x1, 0x1), Drop())),
    ],
)
def test_answers_that_arrive(table: Table) -> None:
    assert asked(table, address="192.0.2.2") == ("carried", "answers arrive")


def test_a_port_or_address_before_nat_is_undone_is_known_only_where_it_is_told() -> None:
    by_port = base("prerouting", (DestinationPort(40000, 40000), Drop()), priority=-300)
    assert asked(by_port)[0] == "cannot_tell"
    by_address = base("prerouting", (Destination(ip_network("192.0.2.2")), Drop()), priority=-300)
    assert asked(by_address)[0] == "cannot_tell"
    assert asked(by_address, address="192.0.2.2")[0] == "not_carried"
    assert asked(by_address, address="192.0.2.3")[0] == "carried"


def test_what_splits_the_answer_is_named_and_what_does_not_is_no_doubt() -> None:
    assert asked(base("forward", (Opaque("recent"), Accept()))) == ("carried", "answers arrive")
    state, words = asked(base("forward", (Opaque("recent"), Accept()), policy="drop"))
    assert (state, words.startswith("whether answers come back: FORWARD rule 1")) == ("cannot_tell", True)


def test_marks_of_the_connection_are_not_known_and_marks_of_the_packet_begin_at_none() -> None:
    restored = base("prerouting", (UnknownMark(),), priority=-150)
    decided = base("forward", (Mark(0x1, 0x1), Accept()), policy="drop")
    assert asked(restored, decided)[0] == "cannot_tell"
    assert asked(base("prerouting", (SetMark(0x1, 0x1),), priority=-150), decided)[0] == "carried"
    assert asked(decided)[0] == "not_carried"


def test_a_chain_where_nat_is_undone_may_see_the_answer_before_or_after() -> None:
    assert asked(base("prerouting", (Destination(PODS), Drop()), priority=-100))[0] == "cannot_tell"


@pytest.mark.parametrize(
    ("out", "back", "state"),
    [
        (7, 7, "carried"),
        (7, 8, "not_carried"),
        (7, 0, "not_carried"),
        (0, 7, "not_carried"),
        (None, 7, "cannot_tell"),
        (7, None, "cannot_tell"),
        (None, None, "cannot_tell"),
    ],
)
def test_an_answer_is_known_in_the_conntrack_zone_of_its_connection_only(
    out: int | None, back: int | None, state: str
) -> None:
    zones = [
        (InInterface(name), ConntrackTemplate(value)) for name, value in (("cni0", out), ("eth0", back)) if value != 0
    ]
    tables = (base("prerouting", *zones, priority=-300), base("postrouting", (Masquerade(),), priority=100, kind="nat"))
    first = evaluate(Ruleset(tables), OUT)
    assert first.state == "carried"
    outcome = evaluate_reply(Ruleset(tables), OUT, carried=first)
    assert outcome.state == state
    assert ("conntrack zone" in outcome.reason) == (state != "carried")


def test_a_conntrack_zone_that_is_chosen_behind_conntrack_means_nothing() -> None:
    late = base("prerouting", (InInterface("cni0"), ConntrackTemplate(7)), priority=-150)
    translated = base("postrouting", (Masquerade(),), priority=100, kind="nat")
    first = evaluate(Ruleset((late, translated)), OUT)
    assert evaluate_reply(Ruleset((late, translated)), OUT, carried=first).state == "carried"


def test_zones_that_hang_on_an_open_question_are_not_taken_for_each_other() -> None:
    either = base(
        "prerouting",
        (InInterface("cni0"), Opaque("a coin"), ConntrackTemplate(7), Accept()),
        (ConntrackTemplate(8),),
        priority=-300,
    )
    translated = base("postrouting", (Masquerade(),), priority=100, kind="nat")
    first = evaluate(Ruleset((either, translated)), OUT)
    assert evaluate_reply(Ruleset((either, translated)), OUT, carried=first).state == "cannot_tell"
