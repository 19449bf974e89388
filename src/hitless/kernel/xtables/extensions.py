"""xtables extension blobs to model steps: the entry point to ``matches`` and ``targets``.

Problem: a rule of iptables-legacy, and many a rule of iptables-nft ("compat" expressions), contains its conditions and
effects as C structures of named, versioned extensions. Promise: pure functions; a known revision of a known extension
becomes exact model steps; everything else (unknown name or revision, a blob that is too short, a flag that the model
cannot express) becomes ``Opaque`` or ``OpaqueAction`` with the extension's name, never an exception and never nothing.
Targets that cannot decide about a packet (LOG, NFLOG, TCPMSS, …) become ``Silent``. Layouts are those of the kernel's
include/uapi/linux/netfilter/xt_*.h in the machine's byte order. Next stages: ``hitless.kernel.xtables`` (tables),
``hitless.kernel.nftables`` (compat expressions).
"""

from __future__ import annotations

import struct

from hitless.kernel.xtables.matches import MATCHES
from hitless.kernel.xtables.targets import SILENT, TARGETS, silent
from hitless.model.families import Family
from hitless.model.rules import Opaque, OpaqueAction, Silent, Step

__all__ = ["decode_match", "decode_target"]


def decode_match(name: str, revision: int, data: bytes, family: Family) -> tuple[Step, ...]:
    """The conditions of a match blob, all of which must hold; empty only for an extension without any condition (``-m
    tcp`` alone).

    ``data`` is the extension's structure, with or without alignment padding.
    """
    decoder = MATCHES.get((name, revision))
    if decoder is None:
        return (Opaque(f"-m {name} (revision {revision}, not known here)"),)
    try:
        return decoder(data, family)
    except (struct.error, ValueError, IndexError):
        return (Opaque(f"-m {name} (revision {revision}: {len(data)} bytes that do not decode)"),)


def decode_target(name: str, revision: int, data: bytes, family: Family) -> tuple[Step, ...]:
    """The effects of a target blob.

    The standard target (``""`` or ``"standard"``) gives Accept, Drop or Return; its jumps are offsets that need the
    whole table, so here they are ``OpaqueAction``.
    """
    if name in SILENT:
        return (Silent(silent(name, data)),)
    decoder = TARGETS.get((name, revision))
    if decoder is None:
        return (OpaqueAction(f"-j {name} (revision {revision}, not known here)"),)
    try:
        return decoder(data, family)
    except (struct.error, ValueError, IndexError):
        return (OpaqueAction(f"-j {name} (revision {revision}: {len(data)} bytes that do not decode)"),)
