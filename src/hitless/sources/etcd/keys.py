"""flannel's keys in etcd: ``PREFIX/config`` and ``PREFIX/subnets/10.5.52.0-24&fc00::-64``.

The form is flannel's (its pkg/subnet/subnet.go). A node without IPv4 has 0.0.0.0-0 in front of its IPv6 subnet. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from hitless.model.families import Family, Network
from hitless.model.reading import network_of

__all__ = ["decoded", "encoded", "key_of", "past", "subnets_of"]

_KEY = re.compile(r"(\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})-(\d{1,2})(?:&([a-f\d:]{2,45})-(\d{1,3}))?", re.ASCII)


def key_of(subnets: Mapping[Family, Network]) -> str:
    """The last part of a lease's key."""
    four, six = subnets.get(Family.IPV4), subnets.get(Family.IPV6)
    first = f"{four.network_address}-{four.prefixlen}" if four is not None else "0.0.0.0-0"
    return first if six is None else f"{first}&{six.network_address}-{six.prefixlen}"


def subnets_of(key: str) -> dict[Family, Network]:
    """The subnets that a key names; none where it is not a lease's."""
    matched = _KEY.fullmatch(key)
    if matched is None:
        return {}
    four, six = matched.group(1, 2), matched.group(3, 4)
    found: dict[Family, Network] = {}
    for family, (address, length) in ((Family.IPV4, four), (Family.IPV6, six)):
        if address is None or (address, length) == ("0.0.0.0", "0"):
            continue
        network = network_of(f"{address}/{length}")
        if network is None:
            return {}
        found[family] = network
    return found


def encoded(key: str | bytes) -> str:
    """Bytes as the gateway's JSON has them: base64."""
    return base64.b64encode(key.encode() if isinstance(key, str) else key).decode()


def decoded(value: object) -> bytes:
    """The bytes of a value in a response; raises ``ValueError``."""
    if not isinstance(value, str):
        raise ValueError("not base64")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def past(prefix: str) -> str:
    """The end of the range of all keys that begin with ``prefix``."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
