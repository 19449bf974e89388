"""The position of a rule in its chain, from the events.

Problem: the kernel describes the position of a new rule only roughly: behind which other rule, which may be announced
later, or not at all for the first and the last. Promise: after ``finish`` the chain's rules are in the order of a dump,
or ``Desync`` says that the order is not known. A chain that is not kept has no order. Rules of placement:
nf_tables_rule_notify in the kernel's net/netfilter/nf_tables_api.c. Next stage: ``transaction``.
"""

from __future__ import annotations

from hitless.kernel import netlink
from hitless.kernel.nftables.changes import Desync
from hitless.kernel.nftables.packing import pack
from hitless.kernel.nftables.state import ChainState

__all__ = ["ChainEdit"]


class ChainEdit:
    """A chain within a transaction: rules in order, and rules whose predecessor has not been announced yet."""

    def __init__(self, chain: ChainState) -> None:
        self.chain = chain
        self._waiting: dict[int, tuple[int, bytes]] = {}  # rule -> the predecessor that it needs, and its message
        self._removed_was_first: bool | None = False  # None: its position was not known yet

    def remove(self, handle: int) -> None:
        if not self.chain.kept:
            return
        if handle in self._waiting:
            self._removed_was_first = None
            before, _ = self._waiting.pop(handle)
            for rule, (predecessor, message) in self._waiting.items():
                if predecessor == handle:
                    self._waiting[rule] = (before, message)
            return
        first = self.chain.rules.first == handle
        try:
            self.chain.rules.remove(handle)
        except KeyError as error:
            raise Desync(f"rule {handle} of chain {self.chain.name} went away, but was not known") from error
        self._removed_was_first = first

    def add(self, handle: int, payload: bytes, position: int, flags: int, *, fresh: bool = False) -> None:
        """``fresh``: the handle is larger than any known one."""
        if not self.chain.kept:
            return
        rules = self.chain.rules
        if handle in self._waiting or (not fresh and handle in rules):
            raise Desync(f"rule {handle} of chain {self.chain.name} was added, but is there already")
        # Without a position it is the first or the last: an appended rule is the last one, an inserted one the first. A
        # replacing rule (APPEND without CREATE) takes the position of the rule whose removal was announced just before.
        replacing = bool(flags & netlink.APPEND) and not flags & netlink.CREATE
        if replacing and self._removed_was_first is None and (rules or self._waiting) and not position:
            raise Desync(f"a rule of chain {self.chain.name} was added and replaced at once")
        message = pack(payload)
        if position:
            try:
                rules.insert_after(position, handle, message)
            except KeyError:
                self._waiting[handle] = (position, message)
        elif flags & netlink.APPEND and not (replacing and self._removed_was_first):
            rules.append(handle, message)
        else:
            rules.prepend(handle, message)
        self._removed_was_first = False
        if self._waiting and handle not in self._waiting:
            self._release(handle)

    def _release(self, placed: int) -> None:
        """Insert the rules that waited for ``placed``, and those that waited for them."""
        due = [placed]
        while due:
            predecessor = due.pop()
            for rule, (_, message) in [each for each in self._waiting.items() if each[1][0] == predecessor]:
                del self._waiting[rule]
                self.chain.rules.insert_after(predecessor, rule, message)
                due.append(rule)

    def finish(self) -> None:
        if self._waiting:
            raise Desync(f"chain {self.chain.name} has rules after rules that no event announced")
