"""Tables of other programs cost nothing while no packet of interest meets them, and are known when one does."""

from __future__ import annotations

import random
import resource
import threading
from ipaddress import IPv4Address

import pytest
from tests.kernel.nftables.nodes import Node
from tests.kernel.nftables.test_mirror import FAMILIES, follow

from hitless.kernel.nftables import Mirror, dump
from hitless.kernel.nftables.interest import Interest
from hitless.kernel.nftables.state import State
from hitless.model.packets import TCP, Packet
from hitless.semantics import evaluate

pytestmark = pytest.mark.kernel

INTEREST = Interest(frozenset({"forward"}))

TABLE = """
table ip t {
  set far { type ipv4_addr; flags interval; elements = { 10.9.0.0/16 } }
  set near { type ipv4_addr; elements = { 10.1.1.1 } }
  map ways { type ipv4_addr : verdict; }
  chain a { ip saddr @far drop; }
  chain b { ip saddr @near accept; }
  chain c { ip saddr { 10.3.0.1, 10.3.0.2 } jump a; }
  chain in { type filter hook input priority 0; jump b; }
  chain base { type filter hook forward priority 0; ip saddr vmap @ways; }
}
"""


def kept(state: State, only: State | None = None) -> dict[object, object]:
    """Rules and elements, by table and name, of what is kept (``only``: of what that state keeps)."""
    found: dict[object, object] = {}
    for key, table in state.tables.items():
        known = table if only is None else only.tables[key]
        for name, chain in table.chains.items():
            if (chain if only is None else known.chains[name]).kept:
                found[key, name] = (chain.kept, list(chain.rules), chain.decoded(table).rules)
        for name, each in table.sets.items():
            if (each if only is None else known.sets[name]).kept:
                found[key, "@", name] = (each.kept, list(each.elements))
    return found


def step(chance: random.Random, state: State) -> str:
    table = state.tables[2, "t"]
    chain = chance.choice(["a", "b", "c", "base", "in"])
    number = chance.randrange(4)
    handles = list(table.chains[chain].rules)
    return chance.choice(
        [
            f"add rule ip t {chain} jump {chance.choice('ab')}"
            if chain not in "ab"
            else f"add rule ip t {chain} accept",
            f"add rule ip t {chain} ip saddr @{chance.choice(['far', 'near'])} drop",
            f"add rule ip t {chain} ip saddr {{ 10.{number}.0.1, 10.{number}.0.2 }} return",
            f"flush chain ip t {chain}",
            f"delete rule ip t {chain} handle {chance.choice(handles)}" if handles else f"flush chain ip t {chain}",
            f"add element ip t near {{ 10.{number}.0.{chance.randrange(9)} }}",
            f"delete element ip t near {{ 10.{number}.0.{chance.randrange(9)} }}",
            f"add element ip t far {{ 10.{20 + number}.0.0/16 }}",
            f"add element ip t ways {{ 10.5.0.{number} : jump {chance.choice('abc')} }}",
            f"add chain ip t n{number}; add rule ip t n{number} ip saddr @near drop",
            f"add rule ip t n{number} ip saddr @far accept; add rule ip t base jump n{number}",
            "flush set ip t near",
        ]
    )


@pytest.mark.parametrize("seed", range(4))
def test_after_every_random_transaction_what_is_of_interest_is_what_a_dump_reads(node: Node, seed: int) -> None:
    chance = random.Random(seed)
    assert node.nft(TABLE)
    with Mirror(node.namespace, interest=INTEREST) as mirror:
        committed = 0
        for _ in range(60):
            text = "\n".join(step(chance, mirror.state) for _ in range(chance.choice([1, 1, 2, 4]))) + "\n"
            if not node.nft(text):
                continue
            committed += 1
            for update in follow(mirror):
                assert update.changes is not None, f"{update.reason} after:\n{text}"
            fresh = dump.read_state(mirror._control, FAMILIES, None, INTEREST)
            assert fresh.generation == mirror.generation
            assert kept(mirror.state, fresh) == kept(fresh), text
        assert committed > 20


def fate(mirror: Mirror, source: str) -> str:
    packet = Packet(IPv4Address(source), IPv4Address("192.0.2.1"), TCP)
    return evaluate(mirror.current, packet, ("forward",)).endings[0].kind


def test_a_large_set_is_read_when_a_rule_asks_for_it_and_then_followed(node: Node) -> None:
    elements = ", ".join(f"10.7.{number >> 8}.{number & 255}" for number in range(6000))
    assert node.nft(TABLE)
    assert node.nft(f"add set ip t many {{ type ipv4_addr; }}\nadd element ip t many {{ {elements} }}\n")
    with Mirror(node.namespace, interest=INTEREST) as mirror:
        assert not mirror.state.tables[2, "t"].sets["many"].kept
        assert node.nft("add element ip t many { 10.8.0.1 }")
        assert node.nft("add rule ip t base ip saddr @many drop")
        follow(mirror)
        assert len(mirror.state.tables[2, "t"].sets["many"].elements) == 6001
        assert [fate(mirror, each) for each in ("10.8.0.1", "10.7.23.111", "10.8.0.2")] == [
            "dropped",
            "dropped",
            "untranslated",
        ]
        assert node.nft("delete element ip t many { 10.8.0.1 }\nadd element ip t many { 10.8.0.2 }")
        follow(mirror)
        assert [fate(mirror, each) for each in ("10.8.0.1", "10.8.0.2")] == ["untranslated", "dropped"]


def test_a_set_becomes_of_interest_while_strangers_never_rest(node: Node) -> None:
    """No generation lasts as long as a read does: what the storm does not touch is had all the same."""
    assert node.nft(TABLE)
    assert node.nft("add set ip t storm { type ipv4_addr; }")
    stop = threading.Event()

    def storm() -> None:
        lines = "".join(f"add element ip t storm {{ 10.{n >> 8 & 255}.{n & 255}.1 }}\n" for n in range(2000))
        while not stop.is_set():
            node.run("nft", "-i", stdin=lines + "flush set ip t storm\n", check=False)

    with Mirror(node.namespace, interest=INTEREST, collapse=True) as mirror:
        thread = threading.Thread(target=storm)
        thread.start()
        try:
            for number in range(20):
                chain, verdict = f"n{number}", "drop" if number % 2 else "accept"
                assert node.nft(f"add chain ip t {chain}\nadd rule ip t {chain} ip saddr @far {verdict}")
                assert node.nft(f"flush chain ip t base\nadd rule ip t base jump {chain}")
                wanted = "dropped" if number % 2 else "untranslated"
                for _ in range(300):
                    mirror.next(0.1)
                    if fate(mirror, "10.9.0.1") == wanted:
                        break
                else:
                    raise AssertionError(f"{chain} is not seen")
            update = mirror._resync("a test", 0)  # a full read, in the middle of it
            assert update.generation
            assert fate(mirror, "10.9.0.1") == "dropped"
        finally:
            stop.set()
            thread.join()


def test_elements_of_strangers_take_no_memory(node: Node) -> None:
    assert node.nft("add table ip t\nadd set ip t many { type ipv4_addr; flags interval; }")
    with Mirror(node.namespace, interest=INTEREST) as mirror:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for part in range(4):
            ranges = ", ".join(f"10.{part}.{n >> 7}.{2 * (n & 127)}" for n in range(20_000))
            assert node.nft(f"add element ip t many {{ {ranges} }}")
            follow(mirror)
        assert not mirror.state.tables[2, "t"].sets["many"].kept
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # 80,000 intervals took 99,000
