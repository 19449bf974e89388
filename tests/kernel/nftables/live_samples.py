"""A sample rule written by its program, and what the kernel then holds of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from tests.kernel.nftables.nodes import Node
from tests.unit.nftables.rule_samples import IPTABLES, TABLE, Sample

from hitless.kernel import netlink
from hitless.kernel.nftables import dump, wire
from hitless.kernel.nftables.packing import unpack
from hitless.kernel.nftables.state import State


@dataclass(frozen=True)
class Written:
    """The rule's message, the messages of the sets that it uses, and the state that was read."""

    rule: bytes
    sets: list[tuple[bytes, list[bytes]]]
    state: State


def dumped(control: netlink.Socket, number: int, family: int, *parts: bytes) -> list[bytes]:
    payload = netlink.nfgenmsg(family) + b"".join(parts)
    kind = wire.SUBSYSTEM << 8 | number
    return [reply.payload for reply in control.dump(kind, payload, operation="read", subject="samples")]


def written(node: Node, sample: Sample) -> Written:
    if sample in IPTABLES:
        program = "ip6tables-nft" if sample.family == "ip6" else "iptables-nft"
        node.run(program, "-t", sample.chain, "-N", "SAMPLE")
        node.run(program, "-t", sample.chain, "-A", "SAMPLE", *shlex.split(sample.text))
        table, chain = sample.chain, "SAMPLE"
    else:
        assert node.nft(TABLE.format(family=sample.family))
        assert node.nft(f"add rule {sample.family} t {sample.chain} {sample.text}"), sample.text
        table, chain = "t", sample.chain
    family = wire.NUMBERS[sample.family]
    with netlink.Socket(netlink.NETFILTER, node.namespace) as control:
        state = dump.read_state(control, (family,))
        rule = unpack(next(state.tables[family, table].chains[chain].rules.entries())[1])
        sets = []
        for head in dumped(control, wire.GETSET, family):
            name = netlink.to_text(netlink.attributes(head, 4)[wire.SET_NAME])
            if name.encode() + b"\0" not in rule:
                continue
            parts = netlink.text(wire.ELEMENTS_TABLE, table), netlink.text(wire.ELEMENTS_SET, name)
            lists = [
                netlink.attributes(each, 4).get(wire.ELEMENTS_LIST, b"")
                for each in dumped(control, wire.GETSETELEM, family, *parts)
            ]
            sets.append((head, lists))
    return Written(rule, sets, state)
