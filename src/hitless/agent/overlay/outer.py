"""The interface by which other nodes are reached, and this node's addresses there, by flannel's rules.

Problem: a node has many addresses, and peers that are told the wrong one reach nobody. Promise: --iface (names or
addresses, the first that is there), else --iface-regex (an address before a name), else --iface-can-reach; without any
of them the interface that has the address of node-public-ip or --public-ip, else the one of the default route. What is
named and is not there is an error with what there is (flannel's pkg/ipmatch). ``choose`` is pure.
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

__all__ = ["Interface", "OuterInterfaces", "choose", "outer_interfaces", "standing"]


@dataclass(frozen=True, slots=True)
class Interface:
    """``addresses``: of one family, in the kernel's order."""

    name: str
    mtu: int
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class OuterInterfaces:
    """``outer`` of each family; ``marks``: what tells today's interfaces from those that had the same names before
    (number, whether it is on); ``trouble``: why a family's stays as it was although it is no longer there."""

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
    """For each family; ``given``: addresses that annotations name, which come before --public-ip. ``before``: earlier
    choices, of which the first that is still there is kept: another default route, or one more address, is no reason
    to move. Nobody moves to a link-local address, which is there also while the others are away. Raises ``InputError``
    where there is none and never was one."""
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
            kept = standing(before.get(family, ()), interfaces)
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


def standing(before: Sequence[Outer], interfaces: Sequence[Interface]) -> Outer | None:
    """The first of earlier choices that is still there, with today's MTU; a link-local one as long as it is alone."""
    here = {one.name: one for one in interfaces}
    for one in before:
        now = here.get(one.name)
        if now is None or one.address not in now.addresses:
            continue
        if not one.address.is_link_local or all(other.is_link_local for other in now.addresses):
            return replace(one, mtu=now.mtu)
    return None


def worth_moving(interfaces: Sequence[Interface], before: Sequence[Outer]) -> Sequence[Interface]:
    """What a node with earlier choices may move to: nothing link-local, unless it was there all the time."""
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
    """One family's outer interface. ``defaults``: of the default routes, the best first; ``leads``: the interface by
    which an address is reached; ``holders``: on which one an address of any family is. Raises ``InputError``."""
    usable = {one.name: one for one in interfaces if one.addresses}
    if options.names or options.patterns or options.can_reach is not None:
        found = _named(options, usable, leads, holders)
        if found is None:
            where, words = (
                "--iface, --iface-regex, --iface-can-reach",
                f"no interface with an {family} address is named",
            )
            raise InputError(words, where=where, expected=_there(usable))
    elif public is not None:
        holder = next((one for one in usable.values() if public in one.addresses), None)
        if holder is None:
            words = f"{public} is on no interface (behind NAT: --iface, and the annotation public-ip-overwrite)"
            raise InputError(words, where="--public-ip, node-public-ip", expected=_there(usable))
        found = holder, public
    else:
        name = next((one for one in defaults if one in usable), "")
        if not name:
            words = f"no default route leads over an interface with an {family} address"
            raise InputError(words, where="--iface", expected=_there(usable))
        found = usable[name], usable[name].addresses[0]
    interface, address = found
    return Outer(interface.name, interface.mtu, address, public or address)


def _named(
    options: OuterOptions,
    usable: Mapping[str, Interface],
    leads: Callable[[Address], str],
    holders: Mapping[Address, str],
) -> tuple[Interface, Address] | None:
    """What --iface, --iface-regex and --iface-can-reach name, in this order."""
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
