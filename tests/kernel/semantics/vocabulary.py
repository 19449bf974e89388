"""The tables of docs/semantics.md as values, and how an example gets into a kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.semantics.wires import Wires

from hitless.kernel import netlink, nftables, xtables
from hitless.model.families import Family
from hitless.model.rules import Rule, Ruleset

DOCUMENT = Path(__file__).parents[3] / "docs" / "semantics.md"

TABLE = """flush ruleset
table inet tracked {{
  chain user {{ ct state invalid counter; }}
}}
table {family} t {{
  set counted {{ type {kind}; counter; elements = {{ {pod} }}; }}
  set timed {{ type {kind}; flags timeout; elements = {{ {pod} timeout 1h }}; }}
  set limited {{ type {kind}; flags dynamic; limit rate 1/day; elements = {{ {pod} }}; }}
  set seen {{ type {kind}; flags dynamic,timeout; timeout 1m; }}
  limit lim {{ rate 1/day; }}
  chain user {{ }}
  chain f {{
    type {type} hook {hook} priority {priority}; policy accept;
    {rule}
  }}
}}
table {family} n {{
  chain post {{ type nat hook postrouting priority 100; masquerade; }}
}}
"""
PODS = {Family.IPV4: "10.42.1.10", Family.IPV6: "fd42:0:0:1::10"}


@dataclass(frozen=True)
class Row:
    """A line of a table: what it is, the evaluator's answer, an example rule, and notes on where that can stand."""

    what: str
    answer: str
    example: str
    table: str

    @property
    def family(self) -> Family:
        return Family.IPV6 if "(ip6)" in self.what else Family.IPV4

    @property
    def condition(self) -> bool:
        """Whether the example is a condition, and a drop belongs behind it."""
        return self.table in ("conditions of nft", "matches of iptables")


def rows(table: str) -> Iterator[Row]:
    """The lines of one table of the document."""
    lines = iter(DOCUMENT.read_text().splitlines())
    for line in lines:
        if line.startswith(f"| {table} |"):
            next(lines)
            break
    for line in lines:
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 3:
            return
        yield Row(cells[0], cells[1], cells[2].strip("`"), table)


def write_nft(net: Wires, row: Row, rule: str) -> None:
    """Put a rule of nft's where its row says."""
    kind, hook, priority = "filter", "forward", "0"
    if "(at postrouting)" in row.what:
        kind, hook, priority = "nat", "postrouting", "90"
    elif "packet asked about (at prerouting)" in row.what:
        kind, hook, priority = "nat", "prerouting", "-100"
    elif "(at prerouting)" in row.what or "fib saddr . iif" in row.example:
        hook, priority = "prerouting", "-150"
    elif row.what == "notrack":
        hook, priority = "prerouting", "-300"
    family = "inet" if "(inet)" in row.what else row.family.nft
    address = "ipv4_addr" if row.family is Family.IPV4 else "ipv6_addr"
    values = {"family": family, "kind": address, "pod": PODS[row.family], "rule": rule}
    net.run("nft", "-f", "-", stdin=TABLE.format(**values, type=kind, hook=hook, priority=priority))


def read_nft(net: Wires, row: Row) -> tuple[Ruleset, tuple[Rule, ...]]:
    """All rules, and those of the example's chain."""
    ruleset = nftables.read_ruleset(net.node, (row.family,))
    return ruleset, next(table for table in ruleset.tables if table.name == "t").chains["f"].rules


def place(row: Row) -> tuple[str, str, str]:
    """Table and chain of iptables for an example, and its words."""
    table, words = "filter", row.example
    if words.startswith("-t "):
        _, table, words = words.split(" ", 2)
    chain = {"nat": "POSTROUTING" if "SNAT" in row.what else "PREROUTING", "raw": "PREROUTING"}.get(table, "FORWARD")
    if "(at postrouting)" in row.what:
        table, chain = "mangle", "POSTROUTING"
    elif "(at prerouting)" in row.what:
        table, chain = "mangle", "PREROUTING"
    return table, chain, words


def write_iptables(net: Wires, row: Row, backend: str, specification: str) -> None:
    """Put a rule where its row says, and a masquerade behind it; the other tables are emptied."""
    program = f"{row.family.iptables}-{backend}-restore"
    table, chain, _ = place(row)
    lines = []
    for name in ("raw", "mangle", "nat", "filter"):
        lines.append(f"*{name}")
        if name == table:
            lines.append(f"-A {chain} {specification}")
        if name == "nat":
            lines.append("-A POSTROUTING -j MASQUERADE")
        lines.append("COMMIT")
    net.run(program, "-w", stdin="\n".join(lines) + "\n")


def read_iptables(net: Wires, row: Row, backend: str) -> tuple[Ruleset, tuple[Rule, ...]]:
    """All rules, and that of the example."""
    read = nftables.read_ruleset if backend == "nft" else xtables.read_ruleset
    ruleset = read(net.node, (row.family,))
    table, chain, _ = place(row)
    found = next(each for each in ruleset.tables if (each.family, each.name) == (row.family.nft, table))
    return ruleset, found.chains[chain].rules[:1]


def set_up(net: Wires) -> None:
    """What the examples speak of: an ipset with the pod in it, an accounting object, a rate estimator."""
    net.run("ipset", "create", "known", "hash:ip")
    net.run("ipset", "add", "known", PODS[Family.IPV4])
    payload = netlink.nfgenmsg(0) + netlink.text(1, "acct") + netlink.be64(2, 0) + netlink.be64(3, 0)
    with netlink.Socket(netlink.NETFILTER, net.node) as socket:
        socket.request(7 << 8, netlink.CREATE, payload, operation="make", subject="acct")  # NFNL_MSG_ACCT_NEW
    for backend in ("nft", "legacy"):
        options = "--rateest-name est --rateest-interval 250ms --rateest-ewmalog 500ms"
        rule = f"*security\n-A OUTPUT -p udp --dport 1 -j RATEEST {options}\nCOMMIT\n"
        net.run(f"iptables-{backend}-restore", "-w", "--noflush", stdin=rule)
