"""Where a rule stands in its chain, as the events tell it.

Problem: the kernel says only roughly where a new rule stands: after which other rule, which may be announced later
still, or nothing at all for the first and the last. Promise: after ``finish`` the chain's rules stand as a dump would
list them, or ``Desync`` says that they cannot be placed. A chain that is not kept has no order. Rules of placement:
nf_tables_rule_notify in the kernel's net/netfilter/nf_tables_api.c. Next stage: ``transaction``.
"""

from __future__ import annotations

from hitless.kernel import netlink
from hitless.kernel.nftables.changes import Desync
from hitless.kernel.nftables.packing import pack
from hitless.kernel.nftables.state import ChainState

__all__ = ["ChainEdit"]


class ChainEdit:
    """A chain in the middle of a transaction: rules in order, and rules whose predecessor was not announced yet."""

    def __init__(self, chain: ChainState) -> None:
        self.chain = chain
        self._order: list[int] | None = None  # made when a rule is put anywhere but at the end
        self._waiting: dict[int, int] = {}  # rule -> the predecessor that it waits for
        self._gone_was_first: bool | None = False  # None: its place was not known yet

    def remove(self, handle: int) -> None:
        if not self.chain.kept:
            return
        if handle not in self.chain.rules:
            raise Desync(f"rule {handle} of chain {self.chain.name} went away, but was not known")
        if handle in self._waiting:
            self._gone_was_first = None
            before = self._waiting.pop(handle)
            for rule, predecessor in self._waiting.items():
                if predecessor == handle:
                    self._waiting[rule] = before
        elif self._order is not None:
            self._gone_was_first = self._order[0] == handle
            self._order.remove(handle)
        else:
            self._gone_was_first = next(iter(self.chain.rules)) == handle
        del self.chain.rules[handle]

    def add(self, handle: int, payload: bytes, position: int, flags: int) -> None:
        rules = self.chain.rules
        if not self.chain.kept:
            return
        if handle in rules:
            raise Desync(f"rule {handle} of chain {self.chain.name} was added, but is there already")
        # Without a position it is the first or the last. An appended rule is the last one, an inserted one the first;
        # a replacing one (APPEND without CREATE) stands where the rule stood whose end was announced just before.
        replacing = bool(flags & netlink.APPEND) and not flags & netlink.CREATE
        if replacing and self._gone_was_first is None and rules and not position:
            raise Desync(f"a rule of chain {self.chain.name} was added and replaced at once")
        if position:
            self._after(position, handle)
        elif not rules or (flags & netlink.APPEND and not (replacing and self._gone_was_first)):
            if self._order is not None:
                self._order.append(handle)
        else:
            self._ordered().insert(0, handle)
        rules[handle] = pack(payload)
        self._gone_was_first = False
        if self._waiting and handle not in self._waiting:
            self._release(handle)

    def _ordered(self) -> list[int]:
        if self._order is None:
            self._order = [rule for rule in self.chain.rules if rule not in self._waiting]
        return self._order

    def _after(self, position: int, handle: int) -> None:
        if position in self._waiting or position not in self.chain.rules:
            self._ordered()
            self._waiting[handle] = position
        elif self._order is not None:
            self._order.insert(self._order.index(position) + 1, handle)
        elif next(reversed(self.chain.rules)) != position:
            order = self._ordered()
            order.insert(order.index(position) + 1, handle)

    def _release(self, placed: int) -> None:
        """Place the rules that waited for ``placed``, and those that waited for them."""
        order = self._ordered()
        due = [placed]
        while due:
            predecessor = due.pop()
            for rule in [rule for rule, wanted in self._waiting.items() if wanted == predecessor]:
                del self._waiting[rule]
                order.insert(order.index(predecessor) + 1, rule)
                due.append(rule)

    def finish(self) -> None:
        if self._waiting:
            raise Desync(f"chain {self.chain.name} has rules after rules that nobody announced")
        if self._order is not None:
            rules = self.chain.rules
            self.chain.rules = {handle: rules[handle] for handle in self._order}
