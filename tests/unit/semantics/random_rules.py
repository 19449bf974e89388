"""Random rule sets as model values, and their text for iptables-restore and nft.

The generator makes what administrators and agents write: few chains, jumps, returns, negations, marks, verdicts; with
conditions that hold about half of the time for the packets that the test sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from random import Random

from hitless.model.families import Family
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP
from hitless.model.rules import (
    Accept,
    Action,
    AddrType,
    Chain,
    Comment,
    CtState,
    Destination,
    DestinationPort,
    Drop,
    Goto,
    Hook,
    IcmpType,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    Match,
    NoTrack,
    OutInterface,
    Ports,
    Protocol,
    Reject,
    Return,
    Rule,
    SetMark,
    Snat,
    Source,
    SourcePort,
    Table,
    TcpFlags,
)

__all__ = ["NODE_V4", "NODE_V6", "POD_IN", "UPLINK", "iptables_text", "nft_text", "random_iptables", "random_nft"]

NODE_V4, NODE_V6 = ip_address("192.0.2.11"), ip_address("2001:db8:0:1::11")
POD_IN, UPLINK = "pod0", "up0"

_MARKS = (0x1, 0x4000, 0x10000)
_NETWORKS = {
    Family.IPV4: [
        ip_network(text)
        for text in (
            "10.42.0.0/16",
            "10.42.1.0/24",
            "10.42.1.10/32",
            "10.0.0.0/8",
            "198.51.100.0/24",
            "198.51.100.1/32",
        )
    ],
    Family.IPV6: [
        ip_network(text)
        for text in (
            "fd42::/48",
            "fd42:0:0:1::/64",
            "fd42:0:0:1::10/128",
            "fd00::/8",
            "2001:db8:ffff::/64",
            "2001:db8:ffff::1/128",
        )
    ],
}


class _Maker:
    def __init__(self, random: Random, family: Family, *, native: bool) -> None:
        self.random = random
        self.family = family
        self.native = native  # nft's own syntax, where more is possible
        self.rejects = True  # the kernel rejects at forward but not at postrouting

    def flip(self, chance: float) -> bool:
        return self.random.random() < chance

    def mark(self) -> Mark:
        mask = self.random.choice(_MARKS)
        return Mark(self.random.choice((0, mask, mask)), mask, self.flip(0.3))

    def protocol(self) -> tuple[Match, ...]:
        echo = ICMP if self.family is Family.IPV4 else ICMPV6
        number = self.random.choice((TCP, TCP, UDP, UDP, echo))
        steps: list[Match] = [Protocol(number)]
        if number == echo:
            if self.flip(0.5):
                kind = 8 if number == ICMP else 128
                steps.append(IcmpType(kind, (0, 255), self.flip(0.3)))
            return tuple(steps)
        extra = self.random.randrange(5)
        ports = [53, 80, 443, 8080]
        if extra == 0:
            first = self.random.choice(ports)
            steps.append(DestinationPort(first, first + self.random.choice((0, 400)), self.flip(0.3)))
        elif extra == 1:
            steps.append(SourcePort(1024, self.random.choice((30000, 65535)), self.flip(0.3)))
        elif extra == 2:
            chosen = sorted(self.random.sample(ports, 2))
            ranges = ((chosen[0], chosen[0]), (chosen[1], chosen[1] + 100))
            steps.append(Ports("dst", ranges, self.flip(0.3)))
        elif extra == 3 and number == TCP:
            steps.append(TcpFlags(0x17, 0x02, self.flip(0.3)))
        return tuple(steps)

    def condition(self, hook: str) -> tuple[Match, ...]:
        kind = self.random.randrange(9)
        networks = _NETWORKS[self.family]
        if kind <= 1:
            return (Source(self.random.choice(networks), self.flip(0.3)),)
        if kind == 2:
            return (Destination(self.random.choice(networks), self.flip(0.3)),)
        if kind == 3:
            return (self.mark(),)
        if kind == 4:
            return self.protocol()
        if kind == 5:
            return (
                CtState(
                    self.random.choice((frozenset({"NEW"}), frozenset({"ESTABLISHED", "RELATED"}))), self.flip(0.2)
                ),
            )
        if kind == 6:
            return (
                AddrType("dst", self.random.choice((frozenset({"LOCAL"}), frozenset({"UNICAST"}))), self.flip(0.3)),
            )
        if kind == 7 and (hook != "prerouting" or self.native):
            return (OutInterface(self.random.choice((UPLINK, "up+", "eth0", "ppp+")), self.flip(0.3)),)
        if hook in ("prerouting", "forward"):
            return (InInterface(self.random.choice((POD_IN, "po+", "veth7")), self.flip(0.3)),)
        return (Comment("nothing to see"),)

    def conditions(self, hook: str) -> tuple[Match, ...]:
        found: dict[type, tuple[Match, ...]] = {}
        for _ in range(self.random.choice((0, 1, 1, 1, 2, 2, 3))):
            steps = self.condition(hook)
            found.setdefault(type(steps[0]), steps)
        return tuple(step for steps in found.values() for step in steps)

    def set_mark(self) -> SetMark:
        mark = self.random.choice(_MARKS)
        return self.random.choice((SetMark(mark, mark), SetMark(mark, mark), SetMark(0, mark), SetMark(mark, 0)))

    def action(self, kind: str, callees: Sequence[str]) -> tuple[Action, ...]:
        if callees and self.flip(0.35):
            call = Goto if self.flip(0.15) else Jump
            return (call(self.random.choice(callees)),)
        if kind == "nat":
            node = NODE_V4 if self.family is Family.IPV4 else NODE_V6
            choices: list[Action] = [Return(), Accept(), self.set_mark(), self.set_mark(), Snat(node, node)]
            choices += [Masquerade(random_fully=self.flip(0.5))] * 4
            if self.native:
                choices.append(Drop())
            return (self.random.choice(choices),)
        if kind == "raw":
            return (self.random.choice((self.set_mark(), NoTrack(), Return(), Accept(), Drop())),)
        if kind == "mangle":
            return (self.random.choice((self.set_mark(), self.set_mark(), Return(), Accept())),)
        no = Reject() if self.rejects else Drop()
        return (self.random.choice((Accept(), Accept(), Drop(), no, Return(), Return(), self.set_mark())),)

    def rules(self, kind: str, hook: str, callees: Sequence[str], most: int) -> tuple[Rule, ...]:
        made = []
        for _ in range(self.random.randint(0, most)):
            steps = self.conditions(hook)
            if self.flip(0.07):
                made.append(Rule((*steps, Comment("counts only"))))
                continue
            action = self.action(kind, callees)
            if kind in ("filter", "raw") and isinstance(action[0], Drop | Reject | NoTrack) and not steps:
                steps = (self.mark(),)  # a bare drop would end most cases before they begin
            made.append(Rule((*steps, *action)))
        return tuple(made)

    def table(self, family: str, name: str, kind: str, hooks: Sequence[Hook], chain_names: Sequence[str]) -> Table:
        self.rejects = all(hook.hook == "forward" for hook in hooks)
        chains: dict[str, Chain] = {}
        users = [f"{name.upper()}-{letter}" for letter in "ABCD"[: self.random.randint(0, 4)]]
        for index, user in reversed(list(enumerate(users))):
            # later chains only, so that there are no loops, which the kernel refuses
            chains[user] = Chain(user, self.rules(kind, hooks[0].hook, users[index + 1 :], 4))
        for hook, chain in zip(hooks, chain_names, strict=True):
            chains[chain] = Chain(chain, self.rules(kind, hook.hook, users, 4), hook)
        return Table(family, name, chains)


def random_iptables(random: Random, family: Family) -> tuple[Table, ...]:
    """Tables as iptables has them."""
    maker = _Maker(random, family, native=False)
    policy = "drop" if maker.flip(0.1) else "accept"
    tables = [
        maker.table(family.nft, "nat", "nat", [Hook("nat", "postrouting", 100)], ["POSTROUTING"]),
        maker.table(family.nft, "filter", "filter", [Hook("filter", "forward", 0, policy)], ["FORWARD"]),
    ]
    if maker.flip(0.5):
        hooks = [Hook("filter", hook, -150) for hook in ("prerouting", "forward", "postrouting")]
        tables.append(maker.table(family.nft, "mangle", "mangle", hooks, [hook.hook.upper() for hook in hooks]))
    if maker.flip(0.3):
        tables.append(maker.table(family.nft, "raw", "raw", [Hook("filter", "prerouting", -300)], ["PREROUTING"]))
    return tuple(tables)


def random_nft(random: Random, family: Family) -> tuple[Table, ...]:
    """Tables as nft has them: several base chains at a hook, any priority, inet tables."""
    maker = _Maker(random, family, native=True)
    tables = []
    for number in range(random.randint(1, 3)):
        own = family.nft if maker.flip(0.7) else "inet"
        priorities = [random.choice((50, 90, 100, 110, 150)) for _ in range(random.randint(0, 2))]
        if number == 0 and not priorities:
            priorities = [100]
        hooks = [
            Hook("nat", "postrouting", priority, "drop" if maker.flip(0.03) else "accept") for priority in priorities
        ]
        if hooks:
            names = [f"nat{index}" for index in range(len(hooks))]
            tables.append(maker.table(own, f"n{number}", "nat", hooks, names))
        filters = [
            Hook("filter", hook, random.choice((-150, 0, 50, 75, 100, 120)), "drop" if maker.flip(0.05) else "accept")
            for hook in ("forward", "postrouting")
            if maker.flip(0.6)
        ]
        if maker.flip(0.3):
            early = maker.random.choice((-300, -250, -150, -50))
            filters.append(Hook("filter", "prerouting", early, "drop" if maker.flip(0.03) else "accept"))
        if filters:
            names = [f"flt{index}" for index in range(len(filters))]
            kind = maker.random.choice(("filter", "mangle", "raw"))
            tables.append(maker.table(own, f"f{number}", kind, filters, names))
    return tuple(tables)


# --- iptables-restore


def _not(negated: bool) -> str:
    return "! " if negated else ""


def _iptables_match(step: Match, family: Family) -> str:
    match step:
        case Source(network, negated):
            return f"{_not(negated)}-s {network}"
        case Destination(network, negated):
            return f"{_not(negated)}-d {network}"
        case InInterface(name, negated):
            return f"{_not(negated)}-i {name}"
        case OutInterface(name, negated):
            return f"{_not(negated)}-o {name}"
        case Mark(value, mask, negated):
            return f"-m mark {_not(negated)}--mark {value:#x}/{mask:#x}"
        case Protocol(number, negated):
            return f"{_not(negated)}-p {number}"
        case DestinationPort(first, last, negated):
            return f"{_not(negated)}--dport {first}:{last}"
        case SourcePort(first, last, negated):
            return f"{_not(negated)}--sport {first}:{last}"
        case Ports(_, ranges, negated):
            listed = ",".join(str(a) if a == b else f"{a}:{b}" for a, b in ranges)
            return f"-m multiport {_not(negated)}--dports {listed}"
        case TcpFlags(_, _, negated):
            return f"{_not(negated)}--syn"
        case IcmpType(number, _, negated):
            if family is Family.IPV4:
                return f"-m icmp {_not(negated)}--icmp-type {number}"
            return f"-m icmp6 {_not(negated)}--icmpv6-type {number}"
        case CtState(states, negated):
            return f"-m conntrack {_not(negated)}--ctstate {','.join(sorted(states))}"
        case AddrType(direction, types, negated):
            return f"-m addrtype {_not(negated)}--{direction}-type {','.join(sorted(types))}"
        case Comment(text):
            return f'-m comment --comment "{text}"'
        case _:
            raise AssertionError(step)


def _iptables_action(step: Action) -> str:
    match step:
        case Accept() | Drop() | Reject() | Return():
            return f"-j {type(step).__name__.upper()}"
        case Jump(chain):
            return f"-j {chain}"
        case Goto(chain):
            return f"-g {chain}"
        case Masquerade(random_fully):
            return "-j MASQUERADE" + (" --random-fully" if random_fully else "")
        case Snat(first, _, _):
            return f"-j SNAT --to-source {first}"
        case SetMark(value, mask):
            return f"-j MARK --set-xmark {value:#x}/{mask:#x}"
        case NoTrack():
            return "-j CT --notrack"
        case _:
            raise AssertionError(step)


def iptables_text(tables: Sequence[Table], family: Family) -> str:
    """The tables for iptables-restore, each replaced whole."""
    lines = []
    for name in ("raw", "mangle", "nat", "filter"):
        table = next((table for table in tables if table.name == name), None)
        lines.append(f"*{name}")
        for chain in table.chains.values() if table is not None else ():
            lines.append(f":{chain.name} {chain.hook.policy.upper() if chain.hook else '-'} [0:0]")
        for chain in table.chains.values() if table is not None else ():
            for rule in chain.rules:
                words = [
                    _iptables_match(step, family) if isinstance(step, Match) else _iptables_action(step)
                    for step in rule.steps
                ]
                lines.append(" ".join(["-A", chain.name, *words]))
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


# --- nft


def _nft_match(step: Match, family: Family) -> str:
    word = {True: "!= ", False: ""}
    match step:
        case Source(network, negated):
            return f"{family.nft} saddr {word[negated]}{network}"
        case Destination(network, negated):
            return f"{family.nft} daddr {word[negated]}{network}"
        case InInterface(name, negated):
            return f'iifname {word[negated]}"{name.replace("+", "*")}"'
        case OutInterface(name, negated):
            return f'oifname {word[negated]}"{name.replace("+", "*")}"'
        case Mark(value, mask, negated):
            return f"meta mark and {mask:#x} {'!=' if negated else '=='} {value:#x}"
        case Protocol(number, negated):
            return f"meta l4proto {word[negated]}{number}"
        case DestinationPort(first, last, negated):
            return f"th dport {word[negated]}{first}-{last}" if first != last else f"th dport {word[negated]}{first}"
        case SourcePort(first, last, negated):
            return f"th sport {word[negated]}{first}-{last}"
        case Ports(_, ranges, negated):
            listed = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
            return f"th dport {word[negated]}{{ {listed} }}"
        case TcpFlags(mask, value, negated):
            return f"tcp flags and {mask:#x} {'!=' if negated else '=='} {value:#x}"
        case IcmpType(number, _, negated):
            return f"{'icmp' if family is Family.IPV4 else 'icmpv6'} type {word[negated]}{number}"
        case CtState(states, negated):
            return f"ct state {word[negated]}{{ {', '.join(sorted(state.lower() for state in states))} }}"
        case AddrType(direction, types, negated):
            names = ", ".join(sorted(name.lower() for name in types))
            return f"fib {direction[0]}addr type {word[negated]}{names}"
        case Comment():
            return ""
        case _:
            raise AssertionError(step)


def _nft_action(step: Action, family: Family) -> str:
    match step:
        case Accept() | Drop() | Reject() | Return() | NoTrack():
            return type(step).__name__.lower()
        case Jump(chain):
            return f"jump {chain}"
        case Goto(chain):
            return f"goto {chain}"
        case Masquerade(random_fully):
            return "masquerade" + (" fully-random" if random_fully else "")
        case Snat(first, _, _):
            return f"snat {family.nft} to {first}"
        case SetMark(value, mask):
            return f"meta mark set meta mark and {~mask & 0xFFFFFFFF:#x} xor {value:#x}"
        case _:
            raise AssertionError(step)


def nft_text(tables: Sequence[Table], family: Family) -> str:
    """The tables for nft -f, in place of everything there was.

    A chain that nobody calls uses conntrack, as some rule of every real node does: without any user the kernel does not
    track connections, and then it does not call NAT chains either (test_kernel_facts).
    """
    lines = ["flush ruleset", "table inet tracked {", "chain user {", "ct state invalid counter", "}", "}"]
    for table in tables:
        lines.append(f"table {table.family} {table.name} {{")
        for chain in table.chains.values():
            lines.append(f"chain {chain.name} {{")
            if chain.hook is not None:
                hook = chain.hook
                lines.append(f"type {hook.type} hook {hook.hook} priority {hook.priority}; policy {hook.policy};")
            for rule in chain.rules:
                words = [
                    _nft_match(step, family) if isinstance(step, Match) else _nft_action(step, family)
                    for step in rule.steps
                ]
                lines.append(" ".join(word for word in ("counter", *words) if word))
            lines.append("}")
        lines.append("}")
    return "\n".join(lines) + "\n"
