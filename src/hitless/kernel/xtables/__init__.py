"""iptables-legacy, read in the kernel's own encoding, without running a program and without creating tables.

Problem: the old xtables path sends no events, and running ``iptables-save`` costs milliseconds and a process. Promise:
``read_ruleset`` reads whole tables by getsockopt, and decodes chains when they are used; ``Poller`` detects changes
soon and cheaply, with the writer where the kernel shows it; ``extensions`` decodes extension blobs, also of
iptables-nft's compat expressions. What is not understood stays in the result as ``Opaque`` or ``OpaqueAction``. It
never writes a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hitless.first_use import on_first_use
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.ports import only_ours
from hitless.model.families import Family
from hitless.model.rules import Ruleset, Table

if TYPE_CHECKING:
    from hitless.kernel.xtables.polling import Poller, Snapshot, lock_paths

__all__ = ["Poller", "Snapshot", "lock_paths", "read_ruleset"]


# a daemon on a node without legacy tables does not load the poller
__getattr__ = on_first_use(__name__, {"polling": ("Poller", "Snapshot", "lock_paths")})


@only_ours("read", "the legacy tables")
def read_ruleset(
    namespace: Namespace = HERE,
    families: Iterable[Family] = (Family.IPV4, Family.IPV6),
    tables: Iterable[str] | None = None,
) -> Ruleset:
    """The legacy tables of a namespace (``tables``: only these); tables that the kernel has not created are left out,
    and not created.

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
