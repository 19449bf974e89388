"""What an ipset is called: rules know it by a number.

Problem: a rule with ``-m set`` holds the set's index in the kernel's list, and "set #3" tells nobody which set that is.
Promise: ``names`` asks the kernel (nfnetlink, IPSET_CMD_GET_BYINDEX, Linux 4.20 and later) for the sets of a namespace
that numbers name, and ``named`` puts them into a sentence. A number that the kernel does not know stays a number. Never
reads or changes members, never fails: names are for people. Next stage: ``hitless.guard``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hitless.errors import KernelError, MissingError
from hitless.kernel import netlink
from hitless.kernel.namespaces import HERE, Namespace

__all__ = ["named", "names"]

# <linux/netfilter/nfnetlink.h>, <linux/netfilter/ipset/ip_set.h>
_SUBSYSTEM, _GET_BYINDEX = 6, 15
_PROTOCOL, _SETNAME, _INDEX = 1, 2, 11
_VERSION = 7
_NUMBERED = re.compile(r"\bset #(\d+)\b")


def names(numbers: Iterable[int], namespace: Namespace = HERE) -> dict[int, str]:
    """The sets' names by their numbers, of those that there are."""
    found: dict[int, str] = {}
    wanted = sorted(set(numbers))
    if not wanted:
        return found
    with netlink.Socket(netlink.NETFILTER, namespace) as socket:
        for number in wanted:
            payload = netlink.nfgenmsg(0) + netlink.attribute(_PROTOCOL, bytes((_VERSION,)))
            payload += netlink.be16(_INDEX, number)
            try:
                replies = socket.request(
                    _SUBSYSTEM << 8 | _GET_BYINDEX, 0, payload, operation="read", subject=f"set {number}"
                )
            except (KernelError, MissingError):  # NotFound is a KernelError: no such set, no ipset, an older kernel
                continue
            for reply in replies:
                name = netlink.to_text(netlink.attributes(reply.payload, 4).get(_SETNAME, b""))
                if name:
                    found[number] = name
    return found


def named(words: str, namespace: Namespace = HERE) -> str:
    """The words with "set #3" said as "set my-set"."""
    known = names((int(number) for number in _NUMBERED.findall(words)), namespace)
    return _NUMBERED.sub(lambda found: f"set {known.get(int(found[1]), f'#{found[1]}')}", words)
