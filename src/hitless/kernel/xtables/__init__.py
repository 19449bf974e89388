"""iptables-legacy, read in the kernel's own encoding: no program is run, and reading creates nothing.

Problem: the old xtables path sends no events, and running ``iptables-save`` to look at it costs milliseconds and a
process. Promise: ``read_ruleset`` reads whole tables by getsockopt, decoded as they are used; ``Poller`` notices
changes soon and cheaply, and names the writer where the kernel can be asked for it; extension blobs are decoded in
``extensions``, for iptables-nft's compat expressions too. What is not understood stays in the
result as ``Opaque`` or ``OpaqueAction``. Never does: write a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.ports import only_ours
from hitless.model.families import Family
from hitless.model.rules import Ruleset, Table

if TYPE_CHECKING:
    from hitless.kernel.xtables.polling import Poller, Snapshot, lock_paths

__all__ = ["Poller", "Snapshot", "lock_paths", "read_ruleset"]


def __getattr__(name: str) -> object:
    """The poller is loaded when it is named: a daemon on a node without legacy tables does not pay for it."""
    if name in ("Poller", "Snapshot", "lock_paths"):
        from hitless.kernel.xtables import polling

        return getattr(polling, name)
    raise AttributeError(name)


@only_ours("read", "the legacy tables")
def read_ruleset(
    namespace: Namespace = HERE,
    families: Iterable[Family] = (Family.IPV4, Family.IPV6),
    tables: Iterable[str] | None = None,
) -> Ruleset:
    """The legacy tables of a namespace (``tables``: only these); what the kernel has not made is left out, not made.

    Raises ``MissingError`` without permission, ``KernelError`` when the kernel refuses.
    """
    from hitless.kernel.xtables.sockopt import TABLES, Tables
    from hitless.kernel.xtables.tables import decode_table

    found: list[Table] = []
    names = TABLES if tables is None else tuple(tables)
    for family in families:
        with Tables(namespace, family) as source:
            for name in names:
                read = source.entries(name)
                if read is not None:
                    found.append(decode_table(family, name, read.info, read.entries))
    return Ruleset(tuple(found))
