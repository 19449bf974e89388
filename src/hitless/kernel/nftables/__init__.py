"""nf_tables, read in the kernel's own encoding, without running a program.

Problem: listing the rules of a large node with ``nft`` takes a second, and sampling misses what happens in between.
Promise: ``read_ruleset`` reads everything of one generation, and decodes chains when they are read; ``Mirror`` keeps
the rule set current from the kernel's events, transaction by transaction, with the writer of each. Tables of
iptables-nft are nf_tables tables, and their compat expressions are decoded too. It never writes (``owned`` does). Next
stages: ``semantics`` evaluates the rules, ``watch`` derives gaps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from hitless.first_use import on_first_use
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.netlink import NETFILTER, Socket
from hitless.kernel.ports import only_ours
from hitless.model.families import Family
from hitless.model.rules import Ruleset

if TYPE_CHECKING:
    from hitless.kernel.nftables.mirror import Mirror, Update
    from hitless.kernel.nftables.replay import TableChange

__all__ = ["Mirror", "TableChange", "Update", "read_ruleset"]


# a daemon that only reads single chains does not load the mirror
__getattr__ = on_first_use(__name__, {"mirror": ("Mirror", "Update"), "replay": ("TableChange",)})


@only_ours("read", "the nf_tables rules")
def read_ruleset(
    namespace: Namespace = HERE,
    families: Iterable[Family] = (Family.IPV4, Family.IPV6),
    tables: Collection[str] | None = None,
    *,
    socket: Socket | None = None,
) -> Ruleset:
    """The nf_tables rule set of a namespace (``tables``: only those names), as it was in one generation.

    ``socket``: an open NETFILTER socket to use. Chains are decoded when they are read. Raises ``MissingError`` without
    permission or nf_tables, ``KernelError`` when the kernel refuses.
    """
    from hitless.kernel.nftables.dump import numbers_of, read_state

    numbers = numbers_of(families)
    if socket is not None:
        return read_state(socket, numbers, tables).ruleset()
    with Socket(NETFILTER, namespace) as own:
        return read_state(own, numbers, tables).ruleset()
