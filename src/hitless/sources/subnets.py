"""The node's subnet: from flags, from the last ``subnet.env``, from Kubernetes.

Problem: a node must get its rules while the API server is away; the last known subnet is the best guess. Promise: flags
first; else the subnet file that flannel or hitless wrote; the API (``hitless.sources.kubernetes``) then confirms or
corrects it. The file is replaced atomically, in flannel's format, and only when it differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model import reading
from hitless.model.families import Family, Network
from hitless.sources.snapshot import SourceSnapshot

__all__ = ["SubnetFile", "read_subnet_file", "render_subnet_file", "write_subnet_file"]

_LONGEST = 1 << 16  # bytes; flannel's has six lines
_SUBNET = {Family.IPV4: "FLANNEL_SUBNET", Family.IPV6: "FLANNEL_IPV6_SUBNET"}
_NETWORK = {Family.IPV4: "FLANNEL_NETWORK", Family.IPV6: "FLANNEL_IPV6_NETWORK"}


@dataclass(frozen=True, slots=True)
class SubnetFile:
    """A subnet.env: this node's subnets, the networks that they are part of, and the MTU."""

    subnets: tuple[Network, ...] = ()
    networks: tuple[Network, ...] = ()
    mtu: int | None = None


def read_subnet_file(path: Path) -> SubnetFile | None:
    """The file's subnets; ``None`` where there is no file. Raises ``InputError`` on one that does not parse."""
    try:
        text = files.read_text(path, most=_LONGEST)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"cannot be read: {why}", where=str(path), expected="flannel's subnet.env") from error
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, equals, value = stripped.partition("=")
        if not equals:
            raise InputError(reading.shown(stripped), where=f"{path}, line {number}", expected="NAME=value")
        values[key] = value.strip().strip("'\"")
    return SubnetFile(_networks(values, _SUBNET, path), _networks(values, _NETWORK, path), _mtu(values, path))


def _mtu(values: Mapping[str, str], path: Path) -> int | None:
    text = values.get("FLANNEL_MTU", "")
    return reading.whole(text, where=f"{path}: FLANNEL_MTU", most=65535) if text else None


def _networks(values: Mapping[str, str], keys: Mapping[Family, str], path: Path) -> tuple[Network, ...]:
    found: list[Network] = []
    for key in keys.values():
        # several networks, separated by commas, are flannel's multi-CIDR form (0.21 to 0.24)
        for part in filter(None, values.get(key, "").split(",")):
            where = f"{path}: {key}"
            found.append(reading.network(part.strip(), where=where, expected="a network", host_bits=True))
    return tuple(found)


def render_subnet_file(snapshot: SourceSnapshot, mtu: int) -> str:
    """flannel's subnet.env: the subnet as its first usable address, then MTU and whether we masquerade."""
    lines: list[str] = []
    for family in (Family.IPV4, Family.IPV6):
        networks = snapshot.networks.get(family)
        if networks is not None:
            subnet = networks.subnet
            lines += [f"{_NETWORK[family]}={networks.network}", f"{_SUBNET[family]}={subnet[1]}/{subnet.prefixlen}"]
    lines += [f"FLANNEL_MTU={mtu}", f"FLANNEL_IPMASQ={'true' if snapshot.masquerade else 'false'}"]
    return "\n".join(lines) + "\n"


def write_subnet_file(path: Path, text: str) -> bool:
    """Replace the file atomically; true when it changed. Raises ``OSError``."""
    with suppress(OSError):
        if files.read(path, most=_LONGEST) == text.encode():
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, text.encode())
    return True
