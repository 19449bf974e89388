"""Sets that are too large to be read are asked for what a packet has."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from tests.kernel.nftables.nodes import HANG, Node, wait_for

from hitless.kernel.nftables import Mirror, dump
from hitless.kernel.nftables.interest import Interest
from hitless.kernel.surroundings import NodeSurroundings
from hitless.model.packets import Packet
from hitless.model.rules import Ruleset
from hitless.semantics import HOOKS, evaluate

pytestmark = pytest.mark.kernel

TABLE = """
table ip t {{
  set s {{ type ipv4_addr; {flags} elements = {{ {elements} }} }}
  chain c {{ type filter hook forward priority 0; ip saddr @s drop; }}
}}
"""


def followed(mirror: Mirror) -> bool:
    """Take what has come; whether the set and the rule were a part of it."""
    mirror.next(0.1)
    table = mirror.state.tables.get((2, "t"))
    return table is not None and "s" in table.sets and len(table.chains["c"].rules) == 1


@pytest.mark.parametrize("intervals", [False, True])
@pytest.mark.parametrize("before", [True, False])
def test_a_set_that_is_too_large_to_be_read_is_asked(
    node: Node, monkeypatch: pytest.MonkeyPatch, intervals: bool, before: bool
) -> None:
    monkeypatch.setattr(dump, "_MOST_LISTED", 4000)
    end, flags = ("/30", "flags interval;") if intervals else ("", "")
    elements = ", ".join(f"10.{number >> 8}.{number & 255}.4{end}" for number in range(500))
    text = TABLE.format(flags=flags, elements=elements)
    within, outside = (Packet(ip_address(each), ip_address("192.0.2.1")) for each in ("10.1.7.4", "10.1.7.9"))
    around = NodeSurroundings(node.namespace)
    if before:
        node.nft(text)
    with Mirror(node.namespace, interest=Interest(frozenset(HOOKS))) as mirror:
        if not before:
            node.nft(text.replace("ip saddr @s drop;", ""))  # nobody asks for it yet, so that it is not kept
            node.nft("add rule ip t c ip saddr @s drop")
            wait_for(lambda: followed(mirror), "the rule that asks for the set")
        found = mirror.state.tables[2, "t"].sets["s"]
        assert found.too_large
        assert not found.kept
        rules = Ruleset(tuple(mirror.current.tables), around)
        assert evaluate(rules, within).state == "not_carried"
        assert evaluate(rules, outside, ("forward",)).endings[0].kind == "untranslated"
        assert len(evaluate(rules, outside, ("forward",)).endings) == 1
        node.nft(f"add element ip t s {{ 10.1.7.{'8/30' if intervals else '9'} }}")
        assert around.refresh()
        mirror.next(0.2)
        rules = Ruleset(tuple(mirror.current.tables), around)
        kinds = {ending.kind for ending in evaluate(rules, outside, ("forward",)).endings}
        assert kinds == {"dropped"}
        assert node.nft("flush chain ip t c")
        assert mirror.next(HANG) is not None
    around.close()
