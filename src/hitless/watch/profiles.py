"""What to watch for a network plugin, from its profile.

Problem: users have plugins that this project does not know. Promise: a profile (``hitless.profiles``) that can be
watched names tables; what types alone do not say is checked, and refused with the file, the line or field and what was
expected. Next stage: ``watching``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hitless import profiles
from hitless.errors import InputError
from hitless.kernel import files
from hitless.model import reading
from hitless.model.families import Address, Backend, Family, Network, family_of
from hitless.model.packets import ICMP, TCP, UDP
from hitless.model.standby import TABLE as STANDBY
from hitless.model.standby import copied
from hitless.profiles import File, TableOfInterest, expected, place

__all__ = ["DEFAULT", "Profile", "TableOfInterest", "load", "parse", "shipped"]

DEFAULT = "canal"
_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}


class Profile(msgspec.Struct, frozen=True):
    """A checked profile. ``networks`` empty: find them in the rules; ``uplink`` empty: find it by the routes.
    ``inside`` are networks of the cluster that no far end lies in; ``far_ends`` the addresses to ask about, where the
    profile names some (else ``destinations`` of ours); ``marks`` the packet marks that pods' packets may have."""

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

    def names_networks(self, table: str) -> frozenset[str]:
        """The chains of ``table`` whose rules name pod networks: the agent's, and the guard's copies of them."""
        own = {name for each in self.tables if each.name == table for name in each.networks_from}
        if table == STANDBY:
            own |= {copy for each in self.tables for name in each.networks_from for copy in copied(each.name, name)}
        return frozenset(own)


def shipped() -> tuple[str, ...]:
    """The names of the profiles that come with hitless and can be watched, those of modes too."""
    found: list[str] = []
    for name in profiles.names():
        if (file := profiles.shipped(name)).tables:
            found += [name, *(mode.name for mode in file.modes)]
    return tuple(found)


def load(name_or_path: str) -> Profile:
    """The shipped profile of that name, else the profile in that file."""
    for name in profiles.names():
        file = profiles.shipped(name)
        mode = next((one for one in file.modes if one.name == name_or_path), None)
        if mode is not None:
            fields = {field: getattr(mode, field) for field in mode.__struct_fields__}
            return _checked(msgspec.structs.replace(file, **fields), "", f"{name}.toml")
        if name_or_path == name and file.tables:
            return _checked(file, "", f"{name}.toml")
    path = Path(name_or_path)
    try:
        text = files.read_text(path, most=1 << 20)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise InputError(
            f"no profile can be read there: {reason}",
            where=f"--profile {name_or_path}",
            expected=f"a TOML file, or one of {', '.join(shipped())}",
        ) from error
    return parse(text, str(path))


def parse(text: str, origin: str) -> Profile:
    """A profile from its text; raises ``InputError`` that names ``origin``, line and field."""
    return _checked(profiles.parse(text, origin), text, origin)


def _networks(values: Iterable[str], field: str, text: str, origin: str) -> tuple[Network, ...]:
    where, wanted = place(text, origin, field), expected(field) or ""
    return tuple(reading.network(value, where=where, expected=wanted) for value in values)


def _far_ends(read: File, inside: Iterable[Network], text: str, origin: str) -> tuple[Address, ...]:
    found = []
    for value in read.far_ends:
        where, wanted = place(text, origin, "far_ends"), expected("far_ends") or ""
        address = reading.address(value, where=where, expected=wanted)
        for network in inside:
            if address in network:
                problem = f"{address} lies inside the cluster, in {network}"
                raise InputError(problem, where=place(text, origin, "far_ends"), expected=expected("far_ends"))
        found.append(address)
    return tuple(dict.fromkeys(found))


def _checked(read: File, text: str, origin: str) -> Profile:
    """Check what types alone do not express."""

    def refuse(field: str, problem: str, wanted: str | None = None) -> InputError:
        return InputError(problem, where=place(text, origin, field), expected=wanted or expected(field))

    for field in ("name", "tables"):
        if not getattr(read, field) and not re.search(rf"^\s*(\[+\s*)?{field}\b", text, re.M):
            raise refuse(field, "it is missing", expected(field) or "a text")
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
                raise refuse(
                    field, f"{name!r} is not an interface name", "up to 15 characters, + at the end for any more"
                )
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
