"""Single chains of nf_tables, read and decoded: what an agent reads on every pass.

Problem: with 5,000 Services the nat table holds 30,000 rules, and an agent needs two chains of it. Promise:
``ChainReader.read`` asks the kernel for exactly the named chains (its dump filters by table and chain), and all of them
belong to one generation: a commit in between repeats the read. A chain that does not exist is missing in the result.
Whole tables are read by ``hitless.kernel.nftables``. Next stage: ``hitless.agent.observer``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from hitless.errors import KernelError, NotFound
from hitless.kernel import netlink
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.expressions import decode
from hitless.model.rules import Chain, Hook, Rule

__all__ = ["ChainName", "ChainReader"]

_TABLE_USE = 3  # NFTA_TABLE_USE
_TRIES = 50  # each repetition needs another commit in the millisecond that a read takes


class ChainName(NamedTuple):
    """``family`` is nftables' name: ip, ip6."""

    family: str
    table: str
    chain: str


def _kind(number: int) -> int:
    return wire.SUBSYSTEM << 8 | number


class ChainReader:
    """Reads chains of one namespace over one open socket; for one thread at a time.

    ``last_generation`` is the generation of the last ``read``.
    """

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._socket = netlink.Socket(netlink.NETFILTER, namespace)
        self.last_generation = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def generation(self) -> int:
        """The number of the last committed transaction of this namespace."""
        replies = self._socket.request(
            _kind(wire.GETGEN), 0, netlink.nfgenmsg(0), operation="read", subject="nf_tables generation"
        )
        for reply in replies:
            value = netlink.attributes(reply.payload, 4).get(wire.GEN_ID)
            if value is not None:
                return wire.number(value)
        raise KernelError("read", "nf_tables generation", reason="the kernel gave none")

    def read(self, names: Iterable[ChainName]) -> Mapping[ChainName, Chain]:
        """Those of the chains ``names`` that exist, of one generation. Raises ``KernelError`` when the rules keep
        changing."""
        wanted = tuple(names)
        before = self.generation()
        for _ in range(_TRIES):
            found: dict[ChainName, Chain] = {}
            for name in wanted:
                hook = self.hook(name)
                if not isinstance(hook, NotFound):
                    found[name] = Chain(name.chain, self._rules(name), hook)
            after = self.generation()
            if after == before:
                self.last_generation = after
                return found
            before = after
        raise KernelError("read", "nf_tables chains", reason=f"changed during each of {_TRIES} reads")

    def hook(self, name: ChainName) -> Hook | NotFound | None:
        """Where the chain is attached (``None``: it has no hook), or a ``NotFound`` value if it does not exist."""
        payload = (
            netlink.nfgenmsg(wire.NUMBERS[name.family])
            + netlink.text(wire.CHAIN_TABLE, name.table)
            + netlink.text(wire.CHAIN_NAME, name.chain)
        )
        try:
            replies = self._socket.request(
                _kind(wire.GETCHAIN), 0, payload, operation="read", subject=f"chain {' '.join(name)}"
            )
        except NotFound as error:
            return error
        return wire.hook_of(netlink.attributes(replies[0].payload, 4)) if replies else None

    def exists(self, name: ChainName) -> bool:
        """Whether the chain exists."""
        return not isinstance(self.hook(name), NotFound)

    def objects(self, family: str, table: str) -> int:
        """How many chains, sets and other objects a table holds; 0 if it does not exist."""
        payload = netlink.nfgenmsg(wire.NUMBERS[family]) + netlink.text(wire.TABLE_NAME, table)
        try:
            replies = self._socket.request(
                _kind(wire.GETTABLE), 0, payload, operation="read", subject=f"table {family} {table}"
            )
        except NotFound:
            return 0
        found = [netlink.attributes(reply.payload, 4).get(_TABLE_USE) for reply in replies]
        return wire.number(found[0]) if found and found[0] else 0

    def count_rules(self, family: str, tables: Collection[str]) -> int:
        """How many rules these tables have, without decoding them."""
        replies = self._socket.dump(
            _kind(wire.GETRULE), netlink.nfgenmsg(wire.NUMBERS[family]), operation="count", subject=f"{family} rules"
        )
        return sum(wire.rule_head(reply.payload).table in tables for reply in replies)

    def _rules(self, name: ChainName) -> tuple[Rule, ...]:
        payload = (
            netlink.nfgenmsg(wire.NUMBERS[name.family])
            + netlink.text(wire.RULE_TABLE, name.table)
            + netlink.text(wire.RULE_CHAIN, name.chain)
        )
        replies = self._socket.dump(
            _kind(wire.GETRULE), payload, operation="read", subject=f"rules of chain {' '.join(name)}"
        )
        rules: list[Rule] = []
        for reply in replies:
            head = wire.rule_head(reply.payload)
            # kernels before 4.15 ignore the filter and return all rules
            if head.table == name.table and head.chain == name.chain:
                rules += decode(reply.payload, name.family, lambda _: None, head.handle)
        return tuple(rules)
