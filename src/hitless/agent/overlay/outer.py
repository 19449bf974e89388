"""The interface by which other nodes are reached: the one of the default route, or the one that --iface names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hitless.errors import InputError
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.routing import Routing
from hitless.model.families import Address, Family
from hitless.model.links import MAIN, LinkState
from hitless.model.overlay import Outer
from hitless.sources.options import OuterOptions

__all__ = ["outer_interfaces"]


def outer_interfaces(
    families: Collection[Family],
    options: OuterOptions,
    given: Mapping[Family, Address],
    observed: LinkState,
    namespace: Namespace = HERE,
) -> dict[Family, Outer]:
    """For each family; ``given``: addresses that annotations name, which come before --public-ip. Raises ``InputError``
    where there is none."""
    mtus = {one.name: one.mtu for one in observed.devices()}
    with Routing(namespace) as routing:
        names = {index: link.name for index, link in routing.links().items()}
        found: dict[Family, Outer] = {}
        for family in families:
            addresses = {
                address: names.get(index, "")
                for address, index in routing.addresses(family).items()
                if not address.is_link_local and not address.is_loopback
            }
            defaults = sorted(
                (one.metric, names.get(one.oif, ""))
                for one in routing.routes(family)
                if one.table == MAIN and one.to.prefixlen == 0
            )
            wanted = [*options.names, *(name for _, name in defaults)] if options.names else [n for _, n in defaults]
            external = given.get(family) or options.public.get(family)
            if external in addresses and not options.names:
                wanted = [addresses[external]]
            name = next((one for one in wanted if one in addresses.values()), "")
            if not name:
                expected = "a default route, or --iface NAME"
                raise InputError(f"no interface with an {family} address leads to other nodes", expected=expected)
            address = next(one for one, at in addresses.items() if at == name)
            found[family] = Outer(name, mtus.get(name, 1500), address, external or address)
    return found
