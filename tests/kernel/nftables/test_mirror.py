"""The mirror against the kernel: after every transaction it holds what a dump would read."""

from __future__ import annotations

import random
import threading
import time
from ipaddress import ip_address
from typing import Any

import pytest
from tests.kernel.nftables.nodes import HANG, Node

from hitless.kernel.clock import Clock
from hitless.kernel.nftables import Mirror, Update, dump
from hitless.kernel.nftables import mirror as mirror_module
from hitless.kernel.nftables.state import State
from hitless.model.packets import Packet
from hitless.semantics import evaluate

pytestmark = pytest.mark.kernel

FAMILIES = (2, 10, 1)


def contents(state: State) -> object:
    """A state in a form that two of them can be compared by."""
    return {
        key: (
            table.dormant,
            {
                name: (chain.hook, list(chain.rules), chain.decoded(table).rules)
                for name, chain in sorted(table.chains.items())
            },
            {name: (each.flags, sorted(each.elements)) for name, each in sorted(table.sets.items())},
        )
        for key, table in sorted(state.tables.items())
    }


def follow(mirror: Mirror) -> list[Update]:
    """Take in everything up to the kernel's present generation."""
    found: list[Update] = []
    now = dump.generation(mirror._control)
    # a commit that touched no table of ours makes no update: ask until the generation is reached
    for _ in range(1000):
        if mirror.generation == now and not mirror.waiting:
            return found
        update = mirror.next(HANG if mirror.generation != now else 0.0)
        if update is not None:
            found.append(update)
    raise AssertionError("the mirror does not arrive at the kernel's generation")


def compare(mirror: Mirror) -> list[Update]:
    updates = follow(mirror)
    fresh = dump.read_state(mirror._control, FAMILIES)
    assert fresh.generation == mirror.generation
    assert contents(mirror.state) == contents(fresh)
    return updates


class Writer:
    """Makes transactions at random, of every kind that places, replaces or removes something."""

    def __init__(self, seed: int, node: Node) -> None:
        self.random = random.Random(seed)
        self.node = node
        self.names = [f"c{number}" for number in range(4)]

    def match(self) -> str:
        return self.random.choice(
            [
                f"ip saddr 10.{self.random.randrange(256)}.0.0/16",
                f"ip daddr != 192.168.{self.random.randrange(256)}.0/24",
                f"tcp dport {{ {self.random.randrange(1, 99)}, {self.random.randrange(100, 999)} }}",
                f"meta mark & 0x{self.random.randrange(1, 99):x} == 0",
                "ip saddr @names",
                'iifname "veth*"',
                f'meta l4proto udp comment "{self.random.randrange(99)}"',
            ]
        )

    def verdict(self) -> str:
        return self.random.choice(["accept", "drop", "return", "counter", "jump sink", "goto sink"])

    def rule(self) -> str:
        match = self.match()
        comment = ""
        if " comment " in match:
            match, _, comment = match.partition(" comment ")
            comment = f" comment {comment}"
        return f"{match} {self.verdict()}{comment}"

    def command(self, state: State) -> str:
        table = state.tables[2, "t"]
        chain = self.random.choice([*(name for name in table.chains if name != "sink"), "base"])
        handles = list(table.chains[chain].rules)
        handle = self.random.choice(handles) if handles else 0
        number = self.random.randrange(8)
        some = [
            f"add rule ip t {chain} {self.rule()}",
            f"insert rule ip t {chain} {self.rule()}",
            f"add element ip t names {{ 10.{number}.0.0/16 }}",
            f"delete element ip t names {{ 10.{number}.0.0/16 }}",
            f"add chain ip t {self.random.choice(self.names)}",
            f"flush chain ip t {chain}",
            f"delete chain ip t {self.random.choice(self.names)}",
            f"chain ip t base {{ policy {self.random.choice(['accept', 'drop'])}; }}",
        ]
        if handle:
            some += [
                f"add rule ip t {chain} position {handle} {self.rule()}",
                f"insert rule ip t {chain} position {handle} {self.rule()}",
                f"replace rule ip t {chain} handle {handle} {self.rule()}",
                f"delete rule ip t {chain} handle {handle}",
            ] * 3
        return self.random.choice(some)

    def transaction(self, state: State) -> str:
        # a refused command refuses the whole transaction, so that most are kept short
        count = self.random.choice([1, 1, 2, 3, 5])
        return "\n".join(self.command(state) for _ in range(count)) + "\n"


TABLE = """
table ip t {
  set names { type ipv4_addr; flags interval; }
  chain sink { }
  chain base { type filter hook forward priority 0; policy accept; ip saddr 10.0.0.0/8 jump sink; accept; drop; }
  chain c0 { tcp dport 1 accept; tcp dport 2 accept; tcp dport 3 accept; tcp dport 4 accept; }
}
"""


@pytest.mark.parametrize("seed", range(6))
def test_after_every_random_transaction_of_nft_the_mirror_holds_what_a_dump_reads(node: Node, seed: int) -> None:
    writer = Writer(seed, node)
    with Mirror(node.namespace) as mirror:
        assert node.nft(TABLE)
        compare(mirror)
        committed = 0
        for _ in range(60):
            text = writer.transaction(mirror.state)
            if not node.nft(text):
                continue
            committed += 1
            for update in compare(mirror):
                assert update.changes is not None, f"{update.reason} after:\n{text}"
        assert committed > 20


IPTABLES = [
    "-A {chain} -s 10.{n}.0.0/16 -j RETURN",
    "-I {chain} -s 10.{n}.0.0/16 -m comment --comment x -j MASQUERADE",
    "-I {chain} 2 -m mark --mark 0x{n}/0xff -j RETURN",
    "-R {chain} 1 -d 10.{n}.0.0/16 -j RETURN",
    "-R {chain} 2 -d 10.{n}.0.0/16 -j RETURN",
    "-D {chain} 1",
    "-D {chain} 2",
    "-F {chain}",
    "-A POSTROUTING -j {chain}",
    "-D POSTROUTING -j {chain}",
    "-N X{n}",
    "-X X{n}",
]


@pytest.mark.parametrize("program", ["iptables-nft", "ip6tables-nft"])
def test_after_every_random_command_of_iptables_the_mirror_holds_what_a_dump_reads(node: Node, program: str) -> None:
    chance = random.Random(program)
    v6 = program.startswith("ip6")
    with Mirror(node.namespace) as mirror:
        node.run(program, "-t", "nat", "-N", "A")
        committed = 0
        for _ in range(60):
            line = chance.choice(IPTABLES).format(chain="A", n=chance.randrange(5))
            if v6:
                line = line.replace("10.", "fd42:").replace(".0.0/16", "::/32")
            before = mirror.generation
            node.run(program, "-t", "nat", *line.split(), check=False)
            for update in compare(mirror):
                assert update.changes is not None, f"{update.reason} after {line}"
            committed += mirror.generation != before
        assert committed > 20


RESTORE = """*nat
:A - [0:0]
-A A -s 10.1.0.0/16 -j RETURN
-A A -s 10.2.0.0/16 -j MASQUERADE
-I A -s 10.3.0.0/16 -j RETURN
-I A -s 10.4.0.0/16 -j RETURN
-D A -s 10.1.0.0/16 -j RETURN
COMMIT
"""


def test_one_restore_with_inserts_and_deletes_in_it_is_one_update_in_the_right_order(node: Node) -> None:
    with Mirror(node.namespace) as mirror:
        for _ in range(3):
            node.run("iptables-nft-restore", "--noflush", stdin=RESTORE)
            updates = compare(mirror)
            assert [update.changes is not None for update in updates] == [True]
            assert updates[0].comm == "iptables-nft-re"


def test_a_renamed_chain_a_sleeping_table_and_a_new_table_of_the_same_name_are_followed(node: Node) -> None:
    with Mirror(node.namespace) as mirror:
        for text in (
            TABLE,
            "add rule ip t base jump c0",
            "rename chain ip t c0 other",
            "add rule ip t other tcp dport 9 drop",
            "add table ip t { flags dormant; }",
            "add table ip t { flags 0; }",
            f"delete table ip t\n{TABLE}",
            "delete table ip t",
            TABLE.replace("table ip t", "table inet t"),
            "flush ruleset",
        ):
            node.nft(text)
            compare(mirror)
        assert not mirror.state.tables


def test_maps_and_sets_of_every_shape_are_followed(node: Node) -> None:
    with Mirror(node.namespace) as mirror:
        for text in (
            TABLE,
            "add map ip t v { type ipv4_addr . inet_proto . inet_service : verdict; }",
            "add element ip t v { 10.0.0.1 . tcp . 80 : drop, 10.0.0.2 . udp . 53 : goto sink }",
            "add rule ip t base ip daddr . meta l4proto . th dport vmap @v",
            "delete element ip t v { 10.0.0.1 . tcp . 80 }",
            "add set ip t r { type ipv4_addr . inet_service; flags interval; }",
            "add element ip t r { 10.0.0.0/24 . 1-1024, 10.9.0.0/16 . 5 }",
            "add rule ip t base ip saddr . tcp dport @r drop",
            "add rule ip t base ct state vmap { established : accept, related : accept, invalid : drop }",
            "flush set ip t r",
            "add element ip t names { 10.0.0.0/8, 192.168.0.5-192.168.0.9 }",
            "flush chain ip t base",
        ):
            assert node.nft(text), text
            for update in compare(mirror):
                assert update.changes is not None, f"{update.reason} after {text}"


def test_a_long_read_gives_way_between_its_pieces(node: Node) -> None:
    rules = "".join(f"add rule ip t c ip saddr 10.0.{number >> 8}.{number & 255} drop\n" for number in range(2000))
    node.nft(f"add table ip t\nadd chain ip t c\nadd set ip t s {{ type ipv4_addr ; }}\n{rules}")
    called: list[int] = []
    with Mirror(node.namespace, sockets=mirror_module.Sockets(node.namespace, lambda: called.append(1))) as mirror:
        assert len(called) > 20  # one for each datagram
        compare(mirror)


def test_an_update_names_the_writer(node: Node) -> None:
    with Mirror(node.namespace) as mirror:
        node.nft(TABLE)
        updates = compare(mirror)
        assert [update.comm for update in updates] == ["nft"]
        assert all(update.pid > 1 for update in updates)
        node.iptables("-t", "nat", "-N", "A")
        assert {update.comm for update in compare(mirror)} == {"iptables-nft"}


class HeldClock(Clock):
    """A clock that makes whoever asks for the time wait while it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.asked = threading.Event()

    def now(self) -> int:
        self.asked.set()
        assert self.free.wait(HANG)
        return super().now()

    def hold(self) -> None:
        self.free.clear()
        self.asked.clear()


def test_events_that_the_kernel_dropped_are_noticed_and_everything_is_read_again(node: Node) -> None:
    clock = HeldClock()
    with Mirror(node.namespace, receive_buffer=4096, clock=clock) as mirror:
        node.nft(TABLE)
        compare(mirror)
        for burst in range(3):
            clock.hold()  # whoever receives stands still after the first transaction
            assert node.nft("add rule ip t base accept")
            lines = [f"add rule ip t c0 ip saddr 10.{burst}.{n // 250}.{n % 250} accept" for n in range(500)]
            assert node.nft("\n".join(lines))
            clock.free.set()
            updates = follow(mirror)
            assert any(update.lost and "dropped events" in update.reason for update in updates)
            assert all(update.noticed <= update.t for update in updates if update.lost)
            compare(mirror)
        # and it goes on as if nothing had been
        node.nft("add rule ip t base drop")
        assert [update.changes is not None for update in compare(mirror)] == [True]


def test_a_commit_that_was_received_late_says_by_how_much_it_may_be_earlier(node: Node) -> None:
    clock = HeldClock()
    with Mirror(node.namespace, clock=clock, urgent=True) as mirror:
        node.nft(TABLE)
        compare(mirror)
        mirror.take_lag()
        clock.hold()  # whoever receives stands still, as on a machine that was stopped
        assert node.nft("add rule ip t base accept")
        assert clock.asked.wait(HANG)  # it may have been slow to come so far
        time.sleep(0.7)
        clock.free.set()
        compare(mirror)
        assert 0.4e9 < mirror.take_lag() < HANG * 1e9
        for _ in range(50):  # one that is received in time is not called late; this machine may be busy
            assert node.nft("add rule ip t base drop")
            compare(mirror)
            if mirror.take_lag() < 0.4e9:
                return
    raise AssertionError("once late, always late")


def test_a_commit_that_came_before_the_receiver_was_there_is_no_later_than_the_mirror_is_old(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = dump.read_state

    def early(*arguments: Any, **more: Any) -> State:
        state = read(*arguments, **more)
        assert node.nft("add rule ip t base accept")
        return state

    assert node.nft(TABLE)
    with monkeypatch.context() as patched:
        patched.setattr(dump, "read_state", early)
        mirror = Mirror(node.namespace, urgent=True)
    with mirror:
        assert len(compare(mirror)) == 1
        assert 0 < mirror.take_lag() < HANG * 1e9


def test_commits_that_come_while_the_rules_are_read_again_are_lost_and_not_passed_over(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.nft(TABLE)
    read = dump.read_state

    def busy(*arguments: Any, **more: Any) -> State:
        assert node.nft("insert rule ip t base drop")  # a gap, begun and ended before it is read
        assert node.nft("flush chain ip t base")
        return read(*arguments, **more)

    with Mirror(node.namespace) as mirror:
        compare(mirror)
        node.nft("rename chain ip t c0 another")  # what the events tell of this cannot be followed
        quiet = follow(mirror)
        assert [(update.changes, update.lost) for update in quiet] == [(None, False)]
        monkeypatch.setattr(dump, "read_state", busy)
        node.nft("rename chain ip t another c0")
        update = mirror.next(HANG)
        assert update is not None and update.lost and update.reason.startswith("2 commits unseen: "), update
        assert update.noticed <= update.t


def test_a_difference_from_the_kernel_is_found_by_comparing_and_mended(node: Node) -> None:
    with Mirror(node.namespace) as mirror:
        node.nft(TABLE)
        compare(mirror)
        chains = {("ip", "t", "base"), ("ip", "t", "c0"), ("ip", "t", "nowhere"), ("ip", "u", "c0")}
        assert mirror.verify(chains) is None
        state = mirror.state.tables[2, "t"].chains["c0"]
        state.rules.remove(state.rules.first)
        state._decode_cache = None
        update = mirror.verify(chains)
        assert update is not None and "c0" in update.reason
        assert mirror.verify(chains) is None
        compare(mirror)


def test_thirty_thousand_foreign_rules_cost_one_dump_and_no_decoding(node: Node) -> None:
    text = ["table ip big {"]
    for number in range(3000):
        text.append(f"chain svc{number} {{")
        text += [f"ip daddr 10.43.{number // 250}.{number % 250} tcp dport {port} accept" for port in range(1, 11)]
        text.append("}")
    assert node.nft("\n".join([*text, "}"]))
    with Mirror(node.namespace) as mirror:
        table = mirror.state.tables[2, "big"]
        assert sum(len(chain.rules) for chain in table.chains.values()) == 30_000
        assert all(chain._decode_cache is None for chain in table.chains.values())
        assert node.nft("add rule ip big svc7 drop")
        updates = follow(mirror)
        assert [update.changes and update.changes[0].chains for update in updates] == [{"svc7"}]
        assert all(chain._decode_cache is None for chain in mirror.state.tables[2, "big"].chains.values())


def test_rules_that_change_all_the_time_are_told_as_unknown_and_read_later(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = Packet(ip_address("10.42.0.5"), ip_address("192.0.2.1"))
    read = dump.read_state

    def restless(*arguments: Any, **more: Any) -> State:
        raise dump.UnstableRulesError("read", "the rules", reason="they changed all the time")

    node.nft("table ip t { chain forward { type filter hook forward priority 0; drop; }; chain c0 {}; }")
    monkeypatch.setattr(mirror_module, "_AGAIN_S", (0.01, 0.01))
    monkeypatch.setattr(dump, "read_state", restless)
    with Mirror(node.namespace) as mirror:  # at the start, too
        assert evaluate(mirror.current, packet).state == "cannot_tell"
        assert mirror.next(0.1) is None
        monkeypatch.setattr(dump, "read_state", read)
        update = mirror.next(HANG)
        assert update is not None and update.lost and "could not be read before" in update.reason
        assert evaluate(mirror.current, packet).state == "not_carried"
        monkeypatch.setattr(dump, "read_state", restless)
        node.nft("rename chain ip t c0 another")  # what the events tell of this cannot be followed
        update = mirror.next(HANG)
        assert update is not None and update.lost and "changed all the time" in update.reason
        assert evaluate(update.ruleset, packet).state == "cannot_tell"
        node.nft("flush chain ip t forward")  # nobody can follow it now
        assert mirror.next(0.1) is None
        monkeypatch.setattr(dump, "read_state", read)
        update = mirror.next(HANG)
        assert update is not None and evaluate(update.ruleset, packet).state == "not_carried"
        assert "drops it" not in evaluate(update.ruleset, packet).reason
        compare(mirror)
