"""A node with flannel's rules in one of the three backends, and what a watch says of a change to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.kernel.nftables.nodes import HANG, Node
from tests.kernel.nftables.nodes import node as bare_node

from hitless.model.events import Change, Event, Gap, Header, RuleState, Summary
from hitless.model.families import Backend, Family
from hitless.watch import Watch, WatchOptions, load

NETWORKS = {Family.IPV4: "10.42.0.0/16", Family.IPV6: "fd42::/48"}
PARTS = {Family.IPV4: "10.42.0.0/24", Family.IPV6: "fd42::/64"}

LINKS = """
ip link add cali1 type veth peer name pod1
ip link add eth0 type veth peer name far0
for each in cali1 pod1 eth0 far0; do ip link set $each up; done
ip addr add 192.0.2.1/24 dev eth0
ip route add default via 192.0.2.254
ip -6 addr add 2001:db8:0:1::1/64 dev eth0 nodad
ip -6 route add default via 2001:db8:0:1::254
"""

IPTABLES = """*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s {part} -d {network} -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s {network} -d {part} -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s {network} -d {part} -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s {network} ! -d {multicast} -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {network} -d {network} -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s {network} -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d {network} -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"""

NATIVE = """
table {ip} flannel-{family} {{
  chain postrtg {{
    type nat hook postrouting priority srcnat;
    meta mark & 0x4000 == 0x4000 return
    {ip} saddr {part} {ip} daddr {network} return
    {ip} saddr {network} {ip} daddr != {multicast} masquerade fully-random
  }}
  chain forward {{
    type filter hook forward priority filter;
    {ip} saddr {network} accept
    {ip} daddr {network} accept
  }}
}}
"""

UNREAD = "the table was replaced before it could be read"
"""What a legacy table of that moment is said to do."""


def rules(backend: Backend, family: Family) -> str:
    text = NATIVE if backend.native else IPTABLES
    return text.format(
        ip=family.nft,
        family=family.value,
        network=NETWORKS[family],
        part=PARTS[family],
        multicast=family.multicast,
    )


@contextlib.contextmanager
def node() -> Iterator[Node]:
    with bare_node() as made:
        made.run("sh", "-e", "-c", LINKS)
        yield made


@dataclass(frozen=True)
class Host:
    """A node and the family and backend in which its rules are."""

    node: Node
    family: Family
    backend: Backend

    def program(self, suffix: str = "") -> str:
        return f"{self.family.iptables}-{self.backend.value}{suffix}"

    def restore(self, text: str) -> None:
        if self.backend.native:
            assert self.node.nft(text)
        else:
            self.node.run(self.program("-restore"), "--noflush", stdin=text)

    def iptables(self, line: str) -> None:
        self.node.run(self.program(), "-w", *line.split())

    def fill(self) -> None:
        self.restore(rules(self.backend, self.family))

    @property
    def network(self) -> str:
        return NETWORKS[self.family]

    def options(self, **changes: object) -> WatchOptions:
        profile = "flannel-nftables" if self.backend.native else "canal"
        defaults: dict[str, object] = {
            "backends": frozenset({self.backend}),
            "families": (self.family,),
            "heartbeat_s": 0.0,
            "duration_s": HANG,
            "urgent": False,
        }
        return WatchOptions(load(profile), self.node.namespace, **(defaults | changes))  # type: ignore[arg-type] # a test's


@dataclass(frozen=True)
class Seen:
    """What a watch said after it had told how things stand at the start."""

    events: list[Event]

    def of(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def states(self) -> list[str]:
        """States one after another; passed over is the moment of which a watch cannot tell because a legacy table was
        replaced again while it was read. On a busy machine it lies between two commands, or between a table's making
        and its first rule."""
        found: list[str] = []
        passed = False
        for event in self.events:
            if isinstance(event, RuleState):
                unread = event.state == "cannot_tell" and UNREAD in event.reason
                if not unread and not (passed and found[-1:] == [event.state]):
                    found.append(event.state)
                passed = unread
        return found

    @property
    def gaps(self) -> list[Gap]:
        return [event for event in self.events if isinstance(event, Gap)]

    @property
    def changes(self) -> list[Change]:
        return [event for event in self.events if isinstance(event, Change)]


def watch_while(options: WatchOptions, *actions: Callable[[], object], states: int = 1) -> Seen:
    """What is said from the start of a watch to its end, while ``actions`` are done one after another.

    ``states`` are told at the start; the watch ends when the actions are done, and must still tell of all of them.
    """
    with Watch(options) as watch:
        seen: list[Event] = []
        told = 0
        for event in watch.events():
            seen.append(event)
            told += isinstance(event, RuleState)
            if isinstance(event, RuleState) and told == states:
                for action in actions:
                    action()
                watch.stop()
    assert isinstance(seen[0], Header) and isinstance(seen[-1], Summary)
    return Seen(seen)
