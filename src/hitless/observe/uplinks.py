"""The uplink: the interface by which pods' packets leave the node.

Problem: rules match the interface by which a packet leaves, and a node may have several: policy routing, VRFs, two
default routes, or a default route to a dummy interface, as air-gapped nodes have. Promise: the uplink of a family is
the one that the user named; else the interface by which the node's routing sends *a pod's* packet to the first far end;
where that leads nowhere (a dummy interface, a link without carrier, no route), to the next one; else the interface of
the widest route by a gateway that is not the cluster's own; else the only interface with an address that is not a
pod's. Otherwise it is not known: nothing is assumed. All far ends are evaluated with the one uplink: they represent
everything outside. Pure, apart from the look-up that is passed in. Next stage: ``witnesses``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from hitless.model.families import Address, Family, Network, in_any
from hitless.observe.nodes import NodeView
from hitless.observe.pods import LocalPod

__all__ = ["LookUp", "Uplink", "uplink"]

LookUp = Callable[[Address, LocalPod | None], str]
"""The interface by which a packet (of that pod) to an address would leave; empty: it would not."""

_NOWHERE = frozenset({"dummy", "ifb", "nlmon"})
_DUMMY = "dummy"  # the kernel's name for them; air-gapped nodes are documented with a link of such a name


@dataclass(frozen=True, slots=True)
class Uplink:
    """The interface ``name`` (empty: not known); ``address``: the source that a masquerade there gives, if known."""

    name: str = ""
    address: Address | None = None


def uplink(
    view: NodeView,
    family: Family,
    far_ends: Sequence[Address],
    look_up: LookUp,
    *,
    pod: LocalPod | None = None,
    inside: Collection[Network] = (),
    named: str = "",
) -> Uplink:
    """The uplink for packets to ``far_ends``; ``named``: by the user. ``inside``: the cluster's own networks."""
    if named:
        return Uplink(named, _address(view, family, named))
    candidates = [look_up(far_end, pod) or (look_up(far_end, None) if pod else "") for far_end in far_ends]
    found = next((name for name in candidates if _leads_on(view, name)), "")
    if inside:  # without it the pods' own bridge would be taken for the uplink
        found = found or _other(view, family, inside)
    found = found or next((name for name in candidates if name), "")
    return Uplink(found, _address(view, family, found)) if found in view.links else Uplink()


def _address(view: NodeView, family: Family, name: str) -> Address | None:
    """The one address of an interface; ``None``: there are several, or none."""
    found = [each for each, at in view.addresses.get(family, {}).items() if at == name and not each.is_link_local]
    return found[0] if len(found) == 1 else None


def _leads_on(view: NodeView, name: str) -> bool:
    link = view.links.get(name)
    if link is None or not link.carrier or link.name == "lo":
        return False
    return link.kind not in _NOWHERE and not link.name.startswith(_DUMMY)


def _other(view: NodeView, family: Family, inside: Collection[Network]) -> str:
    """The uplink of a node whose default route, if it has one, leads nowhere."""

    def outside(network: Network) -> bool:
        return not any(network.overlaps(each) for each in inside)

    routes = [
        route
        for route in view.routes.get(family, ())
        if _leads_on(view, route.device) and not (route.to.is_link_local or route.to.is_multicast)
    ]
    by_gateway = [route for route in routes if not route.direct and (not route.to.prefixlen or outside(route.to))]
    if by_gateway:
        return min(by_gateway, key=lambda route: (route.to.prefixlen, route.metric)).device
    own = view.addresses.get(family, {})
    near = {name for address, name in own.items() if not address.is_loopback and not address.is_link_local}
    pods = {name for address, name in own.items() if in_any(address, inside)}
    wide = [route for route in routes if route.direct and route.to.prefixlen < route.to.max_prefixlen]
    only = (near & {route.device for route in wide if outside(route.to)}) - pods
    return only.pop() if len(only) == 1 else ""
