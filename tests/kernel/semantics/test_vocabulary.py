"""The table in docs/semantics.md, line by line: each example is written into a kernel, and a pod's packets are sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

import pytest
from tests.kernel.semantics.vocabulary import (
    PODS,
    Row,
    place,
    read_iptables,
    read_nft,
    rows,
    set_up,
    write_iptables,
    write_nft,
)
from tests.kernel.semantics.wires import Wires, need, packets, wires

from hitless.kernel.surroundings import NodeSurroundings
from hitless.model import notation
from hitless.model.families import Family
from hitless.model.rules import Rule, Ruleset
from hitless.semantics import evaluate

pytestmark = pytest.mark.kernel

FAR = {Family.IPV4: "203.0.113.9", Family.IPV6: "2001:db8:eeee::9"}
DEFINITE = ("exact", "certain", "asked", "never", "silent")
NOT_WRITTEN_BACK = ("bpf", "frag, hbh", "rateest", "HMARK", "limit, quota, ct count as", "NFQUEUE", "SET", "CT with")
"""Rows whose rule is told in fewer words than it was written in."""


@pytest.fixture(scope="module")
def net() -> Iterator[Wires]:
    need("ipset")
    with wires() as made:
        set_up(made)
        yield made


def compared(net: Wires, row: Row, ruleset: Ruleset) -> list[str]:
    """What is wrong with the answers about a pod's packets; nothing, where they are right."""
    source, far = ip_address(PODS[row.family]), ip_address(FAR[row.family])
    flows = list(packets(net.ports(4), [source], [far]))
    node = NodeSurroundings(net.node)
    try:
        outcomes = [evaluate(Ruleset(ruleset.tables, node), packet) for packet in flows]
    finally:
        node.close()
    wrong = []
    for packet, outcome, arrival in zip(flows, outcomes, net.passed(flows), strict=True):
        real = "dropped" if arrival is None else "leaked" if arrival.src == packet.src else "carried"
        told = outcome.state if outcome.state != "not_carried" else "dropped" if outcome.dropped else "leaked"
        if told not in ("cannot_tell", real):
            wrong.append(f"{row.example}: told {told}, but {real}: {packet}")
        if told == "cannot_tell" and row.answer in DEFINITE:
            wrong.append(f"{row.example}: {row.answer}, but {outcome.reason}")
    open_ = row.answer == "unknown" or (row.answer == "both" and row.condition)
    if open_ and all(each.state != "cannot_tell" for each in outcomes):
        wrong.append(f"{row.example}: {row.answer}, but told: {outcomes[0].reason}")
    return wrong


def plain(text: str) -> bool:
    """Whether the words are a tool's, and no object's of Python."""
    return bool(text) and not any(mark in text for mark in ("(name=", "frozenset", "IPv4Network", "None", "…"))


def steps(rules: Sequence[Rule]) -> list[object]:
    return [rule.steps for rule in rules]


@pytest.mark.parametrize("table", ["conditions of nft", "effects of nft"])
def test_the_vocabulary_of_nft(net: Wires, table: str) -> None:
    wrong, seen = [], 0
    for row in rows(table):
        verdict = " drop" if row.condition and "vmap" not in row.example else ""
        write_nft(net, row, row.example + verdict)
        ruleset, rules = read_nft(net, row)
        wrong += compared(net, row, ruleset)
        seen += 1
        told = [notation.rule(rule, iptables=False) for rule in rules]
        if not all(map(plain, told)) and row.example != "accept":
            wrong.append(f"{row.example}: told as {told}")
        elif len(rules) == 1 and not row.what.startswith(NOT_WRITTEN_BACK) and "elements }" not in told[0]:
            try:
                write_nft(net, row, told[0])
            except AssertionError as refused:
                wrong.append(f"{row.example}: told as {told[0]}: {refused}")
                continue
            if steps(read_nft(net, row)[1]) != steps(rules):
                wrong.append(f"{row.example}: told as {told[0]}, which is another rule")
    net.run("nft", "flush", "ruleset")
    assert not wrong, "\n".join(wrong)
    assert seen > 10


@pytest.mark.parametrize("table", ["matches of iptables", "targets of iptables"])
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_the_vocabulary_of_iptables(net: Wires, table: str, backend: str) -> None:
    need(f"iptables-{backend}-restore", f"ip6tables-{backend}-restore")
    wrong, seen = [], 0
    node = NodeSurroundings(net.node)
    for row in rows(table):
        _, _, example = place(row)
        write_iptables(net, row, backend, example + (" -j DROP" if row.condition else ""))
        ruleset, rules = read_iptables(net, row, backend)
        wrong += compared(net, row, ruleset)
        seen += 1
        told = notation.rule(rules[0], iptables=True, names=node.set_name)
        if not plain(told):
            wrong.append(f"{row.example}: told as {told}")
        elif not row.what.startswith(NOT_WRITTEN_BACK):
            try:
                write_iptables(net, row, backend, told)
            except AssertionError as refused:
                wrong.append(f"{row.example}: told as {told}: {refused}")
                continue
            if steps(read_iptables(net, row, backend)[1]) != steps(rules):
                wrong.append(f"{row.example}: told as {told}, which is another rule")
    node.close()
    for family in Family:
        clean = "".join(f"*{name}\nCOMMIT\n" for name in ("raw", "mangle", "nat", "filter"))
        net.run(f"{family.iptables}-{backend}-restore", "-w", stdin=clean)
    assert not wrong, "\n".join(wrong)
    assert seen > 10
