"""The unit tests' kernel says what the real one says: the same tables, written by nft, are read alike from both."""

from __future__ import annotations

import pytest
from tests.kernel.nftables.nodes import Node
from tests.unit.nftables.wire_kernel import IP, WireControl, WireKernel, ends, looks_up, source

from hitless.kernel import netlink
from hitless.kernel.nftables import dump, wire
from hitless.kernel.nftables.packing import unpack
from hitless.kernel.nftables.state import State

pytestmark = pytest.mark.kernel

ASKED = netlink.nfgenmsg(IP) + netlink.text(1, "t") + netlink.text(2, "ways")
TEXT = """table ip t {
  set block { type ipv4_addr; elements = { 10.42.0.5, 10.0.0.7 }; }
  map ways { type ipv4_addr : verdict; elements = { 10.42.0.5 : jump other }; }
  chain other { drop; }
  chain base { type filter hook forward priority 5; policy drop; ip saddr 10.0.0.9 drop; ip saddr @block accept;
    ip saddr vmap @ways; goto other; }
}"""


def test_tables_that_nft_wrote_are_read_alike_from_both(node: Node) -> None:
    kernel = WireKernel()
    kernel.table("t").chain("t", "other").chain("t", "base", "forward", 5, 0)
    kernel.set("t", "block").set("t", "ways", wire.SET_MAP)
    for address in (bytes([10, 42, 0, 5]), bytes([10, 0, 0, 7])):
        kernel.element("t", "block", address)
    kernel.element("t", "ways", bytes([10, 42, 0, 5]), "other")
    kernel.rule("t", "other", ends(0))
    kernel.rule("t", "base", source(bytes([10, 0, 0, 9])), ends(0))
    kernel.rule("t", "base", looks_up("block"), ends(1))
    kernel.rule("t", "base", looks_up("ways", gives_verdict=True))
    kernel.rule("t", "base", ends(-4, "other"))
    kernel.commit()
    assert node.nft(TEXT)
    with netlink.Socket(netlink.NETFILTER, node.namespace) as control:
        real = dump.read_state(control, (IP,))
        elements = _elements(control.dump(wire.SUBSYSTEM << 8 | wire.GETSETELEM, ASKED, operation="read", subject="t"))
    asking = WireControl(kernel)
    fake = dump.read_state(asking, (IP,))  # type: ignore[arg-type]
    assert fake.ruleset() == real.ruleset()
    assert _sets(fake) == _sets(real)
    # byte for byte, as some readers find by bytes what they look for
    assert _expressions(fake) == _expressions(real)
    dumped = asking.dump(wire.SUBSYSTEM << 8 | wire.GETSETELEM, ASKED, operation="read", subject="t")
    assert _elements(dumped) == elements


def _expressions(state: State) -> dict[str, list[bytes]]:
    """What the rules of each chain are made of."""
    return {
        name: [netlink.attributes(unpack(packed), 4)[wire.RULE_EXPRESSIONS] for _, packed in chain.rules.entries()]
        for name, chain in state.tables[IP, "t"].chains.items()
    }


def _elements(dumped: list[netlink.Message]) -> list[bytes]:
    lists = (netlink.attributes(one.payload, 4)[wire.ELEMENTS_LIST] for one in dumped)
    return sorted(raw for each in lists for _, raw in netlink.attribute_list(each))


def _sets(state: State) -> dict[str, object]:
    found = state.tables[IP, "t"].sets
    return {
        name: (one.flags, one.key_type, one.key_length, one.data_type, list(one.elements), one.intervals())
        for name, one in found.items()
    }
