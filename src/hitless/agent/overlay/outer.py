"""The interface by which other nodes are reached, and this node's address on it, by flannel's rules (pkg/ipmatch).

Problem: a node has many addresses, and peers that know the wrong one cannot reach its pods. Promise: --iface (names or
addresses, the first that exists), else --iface-regex (addresses before names), else --iface-can-reach; without these,
the interface with the address of node-public-ip or --public-ip, else that of the default route. If the named interface
does not exist, the error lists those that do. ``choose`` is pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from hitless.errors import InputError
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.rtnetlink.reader import RtnetlinkReader, names_of, unicast
from hitless.model.families import Address, Family
from hitless.model.links import MAIN, Device
from hitless.model.overlay import Outer
from hitless.model.reading import address_of
from hitless.sources.options import OuterOptions

__all__ = ["Interface", "OuterInterfaces", "choose", "outer_interfaces", "still_there"]


@dataclass(frozen=True, slots=True)
class Interface:
    """``addresses``: of one family, in the kernel's order."""

    name: str
    mtu: int
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class OuterInterfaces:
    """``outer`` of each family; ``marks``: index and state (up or not) of its interfaces, which distinguish them from
    earlier ones of the same name; ``trouble``: why a family's earlier choice is kept although it is gone."""

    outer: Mapping[Family, Outer]
    marks: tuple[tuple[int, bool], ...] = ()
    trouble: str = ""


def outer_interfaces(
    families: Collection[Family],
    options: OuterOptions,
    given: Mapping[Family, Address],
    before: Mapping[Family, Sequence[Outer]] = MappingProxyType({}),
    namespace: Namespace = HERE,
) -> OuterInterfaces:
    """For each family. ``given``: addresses from annotations, which take precedence over --public-ip. ``before``:
    earlier choices, of which the first that still exists is kept, also when the default route changes or addresses are
    added. A link-local address is never adopted later, for it remains while the others are removed for a moment. Raises
    ``InputError`` where there is none and no earlier choice."""
    with RtnetlinkReader(namespace) as reader:
        links = reader.devices()
        names = names_of(links)
        holders = {one.address: one.device for one in reader.addresses(names)}

        def leads(address: Address) -> str:
            route = reader.lookup(names, address)
            return route.device if route is not None else ""

        found: dict[Family, Outer] = {}
        trouble: list[str] = []
        for family in families:
            interfaces = _interfaces(reader, family, links)
            kept = still_there(before.get(family, ()), interfaces)
            if kept is not None:
                found[family] = kept
                continue
            routes = reader.routes(names, family, lambda one: unicast(one, table=MAIN) and one.length == 0)
            public = given.get(family) or options.public.get(family)
            defaults = [one.device for one in sorted(routes, key=lambda one: (one.metric, one.device))]
            try:
                open_to = worth_moving(interfaces, before.get(family, ()))
                found[family] = choose(family, options, public, open_to, defaults, leads, holders)
            except InputError as error:
                if not before.get(family):
                    raise
                found[family] = last = before[family][-1]
                trouble.append(f"{last.address} is no longer on {last.name}, and nothing is in its place: {error}")
    used = {one.name for one in found.values()}
    marks = tuple((link.index, link.up) for link in links if link.name in used)
    return OuterInterfaces(found, marks, "; ".join(trouble))


def _interfaces(reader: RtnetlinkReader, family: Family, links: Sequence[Device]) -> list[Interface]:
    held: dict[str, list[Address]] = {link.name: [] for link in links}
    holders = {one.address: one.device for one in reader.addresses(names_of(links), family)}
    for address, name in holders.items():
        if name in held and not address.is_loopback:
            held[name].append(address)
    return [Interface(link.name, link.mtu or 1500, tuple(_best_first(held[link.name]))) for link in links]


def still_there(before: Sequence[Outer], interfaces: Sequence[Interface]) -> Outer | None:
    """The first earlier choice that still exists, with its current MTU; a link-local one only while it is alone."""
    here = {one.name: one for one in interfaces}
    for one in before:
        now = here.get(one.name)
        if now is None or one.address not in now.addresses:
            continue
        if not one.address.is_link_local or all(other.is_link_local for other in now.addresses):
            return replace(one, mtu=now.mtu)
    return None


def worth_moving(interfaces: Sequence[Interface], before: Sequence[Outer]) -> Sequence[Interface]:
    """The interfaces that a node with earlier choices may change to: without link-local addresses, unless all earlier
    choices were link-local."""
    if all(one.address.is_link_local for one in before):
        return interfaces
    return [
        replace(one, addresses=tuple(each for each in one.addresses if not each.is_link_local)) for one in interfaces
    ]


def choose(
    family: Family,
    options: OuterOptions,
    public: Address | None,
    interfaces: Sequence[Interface],
    defaults: Sequence[str],
    leads: Callable[[Address], str],
    holders: Mapping[Address, str],
) -> Outer:
    """One family's outer interface. ``defaults``: interfaces of the default routes, the best first; ``leads``: returns
    the interface by which an address is reached; ``holders``: the interface of each address. Raises ``InputError``."""
    usable = {one.name: one for one in interfaces if one.addresses}
    if options.names or options.patterns or options.can_reach is not None:
        found = _named(options, usable, leads, holders)
        if found is None:
            where = "--iface, --iface-regex, --iface-can-reach"
            text = f"no interface with an {family} address is named"
            raise InputError(text, where=where, expected=_there(usable))
    elif public is not None:
        holder = next((one for one in usable.values() if public in one.addresses), None)
        if holder is None:
            text = f"{public} is on no interface (behind NAT: --iface, and the annotation public-ip-overwrite)"
            raise InputError(text, where="--public-ip, node-public-ip", expected=_there(usable))
        found = holder, public
    else:
        name = next((one for one in defaults if one in usable), "")
        if not name:
            text = f"no default route leads over an interface with an {family} address"
            raise InputError(text, where="--iface", expected=_there(usable))
        found = usable[name], usable[name].addresses[0]
    interface, address = found
    return Outer(interface.name, interface.mtu, address, public or address)


def _named(
    options: OuterOptions,
    usable: Mapping[str, Interface],
    leads: Callable[[Address], str],
    holders: Mapping[Address, str],
) -> tuple[Interface, Address] | None:
    """The interface of --iface, --iface-regex or --iface-can-reach, in this order."""
    for name in options.names:
        wanted = address_of(name)
        one = usable.get(holders.get(wanted, "") if wanted is not None else name)
        if one is not None:
            return one, wanted if wanted is not None and wanted in one.addresses else one.addresses[0]
    for pattern in options.patterns:
        expression = re.compile(pattern)
        for one in usable.values():
            for address in one.addresses:
                if expression.search(str(address)):
                    return one, address
        for one in usable.values():
            if expression.search(one.name):
                return one, one.addresses[0]
    if options.can_reach is not None and (name := leads(options.can_reach)) in usable:
        return usable[name], usable[name].addresses[0]
    return None


def _best_first(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """Link-local ones last, where nothing else is there; the kernel's order otherwise."""
    return tuple(sorted(addresses, key=lambda one: one.is_link_local))


def _there(usable: Mapping[str, Interface]) -> str:
    held = ", ".join(f"{one.name} ({one.addresses[0]})" for one in list(usable.values())[:8])
    return f"one of {held}" if held else "an interface with an address"
