"""A bundle for a bug report: the diagnosis and what it was made from, in one file that can be read before it is sent.

Problem: a report without rules and versions cannot be answered, and with them it holds addresses and names. Promise: a
.tar.gz of text files, written whole or not at all, mode 0600; each part is bounded; secrets are taken out always; with
``masked`` every address is replaced by one of the same family from documentation ranges, the same everywhere, and host
and node names by labels. It runs read-only programs (``iptables-save``, ``nft list ruleset``, ``ip``) and reads files.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec

from hitless.doctor.findings import Diagnosis
from hitless.errors import HitlessError
from hitless.evidence.redaction import Mask
from hitless.kernel import files, processes
from hitless.model import reading

__all__ = ["Masked", "collect", "write"]

_MOST = 4 << 20  # bytes of one part: 50,000 rules have 6 MB, of which the first ones tell
_WITHIN = 10.0

_PROGRAMS: Mapping[str, Sequence[str]] = {
    "rules/iptables-nft.txt": ["iptables-nft-save"],
    "rules/ip6tables-nft.txt": ["ip6tables-nft-save"],
    "rules/iptables-legacy.txt": ["iptables-legacy-save"],
    "rules/ip6tables-legacy.txt": ["ip6tables-legacy-save"],
    "rules/nft.txt": ["nft", "--stateless", "list", "ruleset"],
    "net/links.txt": ["ip", "-details", "link"],
    "net/addresses.txt": ["ip", "address"],
    "net/routes.txt": ["ip", "route", "show", "table", "all"],
    "net/rules.txt": ["ip", "rule"],
}
_FILES: Mapping[str, str] = {
    "net/subnet.env": "/run/flannel/subnet.env",
    "net/sysctl-forward.txt": "/proc/sys/net/ipv4/ip_forward",
    "net/conntrack-count.txt": "/proc/sys/net/netfilter/nf_conntrack_count",
    "net/conntrack-max.txt": "/proc/sys/net/netfilter/nf_conntrack_max",
    "system/os-release.txt": "/etc/os-release",
    "system/version.txt": "/proc/version",
    "guard/state.json": "/run/hitless-guard/state.json",
    "guard/journal.jsonl": "/var/log/hitless/guard.jsonl",
}


def collect(programs: Mapping[str, Sequence[str]] = _PROGRAMS, paths: Mapping[str, str] = _FILES) -> dict[str, str]:
    """Each part by its name in the bundle; what cannot be had says why."""
    parts: dict[str, str] = {}
    for name, command in programs.items():
        try:
            parts[name] = processes.run(command, check=False, timeout=_WITHIN).stdout[:_MOST]
        except HitlessError as error:
            parts[name] = f"# {error}\n"
    for name, path in paths.items():
        try:
            parts[name] = files.read(Path(path), most=_MOST).decode("utf-8", "replace")
        except (OSError, HitlessError) as error:
            parts[name] = f"# {path}: {error}\n"
    return parts


class Masked:
    """Takes secrets out; with ``names`` also addresses, MAC addresses and names, by the same stand-in everywhere."""

    def __init__(self, names: Mapping[str, str] | None) -> None:
        self._mask = Mask(names)
        self._all = names is not None
        self._known: dict[str, str] = {}
        self._count = {4: 0, 6: 0, 48: 0}

    def text(self, text: str) -> str:
        """The text, masked line by line."""
        clean = "\n".join(self._mask.text(line) for line in text.split("\n"))
        if not self._all:
            return clean
        clean = _MAC.sub(
            lambda found: self._standing(
                found[0].lower(), 48, lambda n: f"02:00:00:00:{n >> 8 & 255:02x}:{n & 255:02x}"
            ),
            clean,
        )
        return _ADDRESS.sub(self._address, clean)

    def _address(self, found: re.Match[str]) -> str:
        address = reading.address_of(found[0])
        if address is None or address.is_unspecified or address.is_loopback or address.is_multicast:
            return found[0]
        if isinstance(address, IPv4Address):
            return self._standing(str(address), 4, lambda n: str(_V4 + n % _V4_ROOM))
        return self._standing(str(address), 6, lambda n: str(_V6 + n))

    def _standing(self, real: str, kind: int, made: Callable[[int], str]) -> str:
        if real not in self._known:
            self._count[kind] += 1
            self._known[real] = made(self._count[kind])
        return self._known[real]


_MAC = re.compile(r"\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b")
_ADDRESS = re.compile(r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4})(?![\w:])")
_V4, _V4_ROOM = IPv4Address("198.18.0.0"), 1 << 17  # RFC 2544's benchmarking range: no real host has one
_V6 = IPv6Address("2001:db8::")


def write(path: Path, diagnosis: Diagnosis, text: str, *, names: Mapping[str, str] | None) -> int:
    """Write the bundle; the answer is how many parts it has. ``names`` given: masked. Raises ``InputError``."""
    masked = Masked(names)
    parts = {
        "diagnosis.txt": text,
        "diagnosis.json": msgspec.json.format(msgspec.json.encode(diagnosis), indent=1).decode(),
    }
    parts |= collect()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, content in parts.items():
            data = masked.text(content).encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"hitless-doctor/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
            packed.addfile(entry, io.BytesIO(data))
    files.replace(path, buffer.getvalue(), mode=0o600)
    return len(parts)


def own_names() -> dict[str, str]:
    """This host's name, and its short form, with the placeholder for it."""
    host = os.uname().nodename
    return {host: "host", host.partition(".")[0]: "host"}
