"""Profiles: what to watch for a network plugin, as data.

Problem: every plugin names its chains in its own way, and users have plugins that nobody here has heard of. Promise: a
profile is a TOML file that people can write (docs/watch.md); one that does not parse is refused whole, with the file,
the line or field and what was expected. A profile says where to look and which packets to ask about; it never says what
"good" is: that is what the evaluator finds. Next stage: ``watching``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model import reading
from hitless.model.documents import Excess, decoded
from hitless.model.families import Address, Backend, Family, Network, family_of
from hitless.model.packets import ICMP, TCP, UDP

__all__ = ["DEFAULT", "Profile", "TableOfInterest", "load", "parse", "shipped"]

DEFAULT = "canal"
_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}


class TableOfInterest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table and the chains in it whose every change is reported; ``networks_from``: chains whose masquerade rules
    name the pod networks."""

    name: str
    chains: tuple[str, ...] = ()
    networks_from: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile file, field by field."""

    name: str
    tables: tuple[TableOfInterest, ...]
    description: str = ""
    backends: tuple[Literal["nft", "legacy", "nftables"], ...] = ("nft", "legacy", "nftables")
    families: tuple[Literal["ipv4", "ipv6"], ...] = ("ipv4", "ipv6")
    networks: tuple[str, ...] = ()
    cluster_networks: tuple[str, ...] = ()
    protocols: tuple[Literal["tcp", "udp", "icmp"], ...] = ("tcp", "udp", "icmp")
    destinations: int = 2
    far_ends: tuple[str, ...] = ()
    pod_interfaces: tuple[str, ...] = ()
    uplink: str = ""
    marks: tuple[int, ...] = (0,)


class Profile(msgspec.Struct, frozen=True):
    """A checked profile. ``networks`` empty: find them in the rules; ``uplink`` empty: ask the routes. ``inside`` are
    networks of the cluster that no far end lies in; ``far_ends`` the addresses to ask about, where the profile names
    some (else ``destinations`` of ours); ``marks`` the packet marks that pods' packets may have."""

    name: str
    tables: tuple[TableOfInterest, ...]
    description: str
    backends: frozenset[Backend]
    families: tuple[Family, ...]
    networks: tuple[Network, ...]
    inside: tuple[Network, ...]
    protocols: tuple[int, ...]
    destinations: int
    far_ends: tuple[Address, ...]
    pod_interfaces: tuple[str, ...]
    uplink: str
    marks: tuple[int, ...]

    def of_interest(self, table: str) -> frozenset[str]:
        """The chains of ``table`` whose every change is reported."""
        return frozenset(name for each in self.tables if each.name == table for name in each.chains)


def shipped() -> dict[str, str]:
    """The texts of the profiles that come with hitless, by name."""
    folder = resources.files(__package__)
    return {
        each.name.removesuffix(".toml"): each.read_text("utf-8")
        for each in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if each.name.endswith(".toml")
    }


def load(name_or_path: str) -> Profile:
    """The shipped profile of that name, else the profile in that file."""
    known = shipped()
    if name_or_path in known:
        return parse(known[name_or_path], f"{name_or_path}.toml")
    path = Path(name_or_path)
    try:
        text = files.read_text(path, most=1 << 20)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no UTF-8 text"
        raise InputError(
            f"no profile can be read there: {reason}",
            where=f"--profile {name_or_path}",
            expected=f"a TOML file, or one of {', '.join(known)}",
        ) from error
    return parse(text, str(path))


def parse(text: str, origin: str) -> Profile:
    """A profile from its text; raises ``InputError`` that names ``origin``, line and field."""
    try:
        data = decoded(lambda: tomllib.loads(text))
    except Excess as error:
        raise InputError(str(error), where=origin, expected="a TOML file (docs/watch.md)") from error
    except tomllib.TOMLDecodeError as error:
        words, _, place = str(error).partition(" (at ")
        where = f"{origin}: {place.rstrip(')')}" if place else origin
        raise InputError(words, where=where, expected="a TOML file (docs/watch.md)") from error
    try:
        read = msgspec.convert(data, _File)
    except msgspec.ValidationError as error:
        raise _refused(str(error), text, origin) from error
    return _checked(read, text, origin)


_KINDS = {
    "str": "a text",
    "int": "a number",
    "float": "a fraction",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def _refused(message: str, text: str, origin: str) -> InputError:
    """The reader's complaint in our words: file, line, field, what is wrong and what was expected."""
    words, _, path = message.partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    named = re.search(r"field `(\w+)`", words)
    where = _place(text, origin, ".".join(part for part in (field, named[1] if named else "") if part))
    if named and "unknown" in words:
        shape = TableOfInterest if field.startswith("tables") else _File
        known = ", ".join(shape.__struct_fields__)
        return InputError(f"there is no field {named[1]}", where=where, expected=f"one of {known}")
    if named:
        return InputError("it is missing", where=where, expected=_expected(named[1]) or "a text")
    got = re.search(r"got `(\w+)`", words)
    if got:
        return InputError(f"this is {_KINDS.get(got[1], got[1])}", where=where, expected=_expected(field) or "a text")
    value = re.search(r"value ('.*')", words)
    words = f"{value[1]} is not known" if value else words[:1].lower() + words[1:]
    return InputError(words, where=where, expected=_expected(field))


def _place(text: str, origin: str, field: str) -> str:
    """File, line and field; the line is that of the field's first mention, when it has one."""
    key = re.sub(r"\[.*?\]", "", field).rsplit(".", 1)[-1]
    if key:
        pattern = re.compile(rf"^\s*(\[+\s*)?{re.escape(key)}\b")
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.match(line):
                return f"{origin}: line {number}: {field}"
    return f"{origin}: {field}" if field else origin


def _expected(field: str) -> str | None:
    key = re.sub(r"\[.*?\]", "", field).rsplit(".", 1)[-1]
    return {
        "backends": 'a list of "nft", "legacy", "nftables"',
        "families": 'a list of "ipv4", "ipv6"',
        "protocols": 'a list of "tcp", "udp", "icmp"',
        "networks": 'a list of networks, such as ["10.42.0.0/16"]',
        "cluster_networks": 'a list of networks, such as ["10.43.0.0/16"]',
        "pod_interfaces": 'a list of names, such as ["veth+"]',
        "marks": "a list of numbers from 0 to 0xffffffff",
        "destinations": "1, 2 or 3",
        "far_ends": 'a list of addresses outside of the cluster, such as ["8.8.8.8"]',
        "chains": 'a list of chain names, such as ["POSTROUTING"]',
        "networks_from": 'a list of chain names, such as ["FLANNEL-POSTRTG"]',
        "tables": 'tables of interest: [[tables]] with name = "nat" and chains = ["POSTROUTING"]',
    }.get(key)


def _networks(values: Iterable[str], field: str, text: str, origin: str) -> tuple[Network, ...]:
    where, expected = _place(text, origin, field), _expected(field) or ""
    return tuple(reading.network(value, where=where, expected=expected) for value in values)


def _far_ends(read: _File, inside: Iterable[Network], text: str, origin: str) -> tuple[Address, ...]:
    found = []
    for value in read.far_ends:
        where, expected = _place(text, origin, "far_ends"), _expected("far_ends") or ""
        address = reading.address(value, where=where, expected=expected)
        for network in inside:
            if address in network:
                words = f"{address} lies inside the cluster, in {network}"
                raise InputError(words, where=_place(text, origin, "far_ends"), expected=_expected("far_ends"))
        found.append(address)
    return tuple(dict.fromkeys(found))


def _checked(read: _File, text: str, origin: str) -> Profile:
    """What types alone do not say."""

    def refuse(field: str, words: str, expected: str | None = None) -> InputError:
        return InputError(words, where=_place(text, origin, field), expected=expected or _expected(field))

    for field in ("backends", "families", "protocols", "tables", "marks"):
        if not getattr(read, field):
            raise refuse(field, "the list is empty")
    if not 1 <= read.destinations <= 3:
        raise refuse("destinations", f"{read.destinations} destinations are not possible")
    if any(not 0 <= mark <= 0xFFFFFFFF for mark in read.marks):
        raise refuse("marks", "a packet mark has 32 bits")
    for field, names in (("pod_interfaces", read.pod_interfaces), ("uplink", (read.uplink,) if read.uplink else ())):
        for name in names:
            if not 0 < len(name.rstrip("+")) < 16 or re.search(r"[\s/]", name):
                raise refuse(field, f"{name!r} is no interface name", "up to 15 characters, + at the end for any more")
    for table in read.tables:
        if not table.name or any(not name for name in (*table.chains, *table.networks_from)):
            raise refuse("tables", "a table or chain has no name")
    families = tuple(Family(name) for name in dict.fromkeys(read.families))
    networks = _networks(read.networks, "networks", text, origin)
    for network in networks:
        if family_of(network) not in families:
            raise refuse("networks", f"{network} is of a family that the profile does not watch", "a watched family")
    inside = _networks(read.cluster_networks, "cluster_networks", text, origin)
    return Profile(
        read.name,
        read.tables,
        read.description,
        frozenset(Backend(name) for name in read.backends),
        families,
        networks,
        inside,
        tuple(_PROTOCOLS[name] for name in dict.fromkeys(read.protocols)),
        read.destinations,
        _far_ends(read, inside + networks, text, origin),
        read.pod_interfaces,
        read.uplink,
        read.marks,
    )
