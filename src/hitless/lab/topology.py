"""The wiring of a lab as text for ``ip -batch``, and the sysctls of each place. Pure.

A pod is connected to its node as with Calico: a veth whose host side has the address ee:ee:ee:ee:ee:ee, a host route to
the pod, and in the pod a default route over a link-local gateway that exists nowhere else. Neighbours on these links
are permanent, so that no measurement waits for ARP. The underlay is a bridge with a port for each node (or, routed, a
link for each) and a router with one more link, to the far end; the far end has routes to the underlay only, so that a
packet which leaves a node with a pod's address arrives, but no reply can be sent. Next stage: ``hitless.lab.building``
runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address

from hitless.lab.plans import LabPlan, Wiring
from hitless.model.families import Address, Family

__all__ = ["far_end", "node", "pod", "sysctls", "underlay"]

_HOST_MAC = "ee:ee:ee:ee:ee:ee"
_POD_GATEWAY: Mapping[Family, Address] = {
    Family.IPV4: IPv4Address("169.254.1.1"),
    Family.IPV6: IPv6Address("fe80::ecee:eeff:feee:eeee"),  # EUI-64 of ee:ee:ee:ee:ee:ee
}

_COMMON = {
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    # without duplicate address detection, addresses are usable at once and not after a second
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/default/accept_ra": "0",
}
_ROUTER = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/forwarding": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}


def sysctls(place: str) -> dict[str, str]:
    """What to write below /proc/sys in a new ``node``, ``pod``, ``underlay`` or ``far_end``."""
    match place:
        case "node":
            # loose: replies of Services arrive on other links than the route back uses
            return _COMMON | _ROUTER | {f"net/ipv4/conf/{name}/rp_filter": "2" for name in ("all", "default")}
        case "underlay":
            return _COMMON | _ROUTER
        case "far_end":
            # thousands of new connections a second from few addresses must not look like an attack
            return _COMMON | {
                "net/core/somaxconn": "65535",
                "net/ipv4/tcp_max_syn_backlog": "65535",
                "net/ipv4/icmp_ratelimit": "0",
                "net/ipv6/icmp/ratelimit": "0",
            }
        case _:
            return _COMMON


def _address(address: Address, length: int, device: str) -> str:
    return f"addr add {address}/{length} dev {device}{' nodad' if address.version == 6 else ''}"


def underlay(plan: LabPlan, node_net: Callable[[int], str], far_net: str) -> str:
    """The switch, its router and every link that leaves it; ``node_net`` and ``far_net`` are namespace paths."""
    routed = plan.wiring == Wiring.ROUTED
    bridge = ["link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "link set br0 up"]
    lines = [
        "link set lo up",
        *([] if routed else bridge),
        f"link add far type veth peer name eth0 netns {far_net}",
        "link set far up",
    ]
    for i in range(plan.nodes):
        name = plan.node_name(i)
        master = "" if routed else "master br0 "
        lines += [f"link add {name} type veth peer name eth0 netns {node_net(i)}", f"link set {name} {master}up"]
    for family in plan.families:
        transit = plan.transit(family)
        for i, device in enumerate(map(plan.node_name, range(plan.nodes)) if routed else ("br0",)):
            lines.append(_address(plan.gateway(family, i), plan.uplink_network(family, i).prefixlen, device))
        if routed and not plan.overlay:
            for i in range(plan.nodes):
                lines.append(f"route add {plan.subnet(family, i)} via {plan.node_address(family, i)}")
        lines += [
            _address(transit[1], transit.prefixlen, "far"),
            f"route add {plan.far_network(family)} via {transit[2]}",
        ]
    return "\n".join(lines) + "\n"


def far_end(plan: LabPlan) -> str:
    """The far end: its own addresses on lo, and one route, to the underlay."""
    lines = ["link set lo up", "link set eth0 up"]
    for family in plan.families:
        transit = plan.transit(family)
        lines.append(_address(transit[2], transit.prefixlen, "eth0"))
        lines += [_address(address, address.max_prefixlen, "lo") for address in plan.far(family)]
        lines.append(f"route add {plan.underlay(family)} via {transit[1]} src {plan.far(family)[0]}")
    return "\n".join(lines) + "\n"


def node(plan: LabPlan, index: int, pod_net: Callable[[int], str]) -> str:
    """A node: its uplink, routes to the others' pods unless agents make them, a link and a host route for each pod."""
    lines = ["link set lo up", "link set eth0 up"]
    for family in plan.families:
        lines.append(_address(plan.node_address(family, index), plan.uplink_network(family, index).prefixlen, "eth0"))
        gateway = plan.gateway(family, index)
        lines.append(f"route add default via {gateway} dev eth0")
        for other in range(0 if plan.overlay else plan.nodes):
            if other != index:
                via = gateway if plan.wiring == Wiring.ROUTED else plan.node_address(family, other)
                lines.append(f"route add {plan.subnet(family, other)} via {via} dev eth0")
    for number in range(plan.pods_per_node):
        name, mac = plan.pod_interface(index, number), plan.pod_mac(index, number)
        lines.append(
            f"link add {name} address {_HOST_MAC} type veth peer name eth0 address {mac} netns {pod_net(number)}"
        )
        lines.append(f"link set {name} up")
        for family in plan.families:
            address = plan.pod_address(family, index, number)
            lines.append(f"route add {address}/{address.max_prefixlen} dev {name}")
            lines.append(f"neigh add {address} lladdr {mac} dev {name} nud permanent")
    return "\n".join(lines) + "\n"


def pod(plan: LabPlan, index: int, number: int) -> str:
    """A pod: one address, and everything over the link-local gateway."""
    lines = ["link set lo up", "link set eth0 up"]
    for family in plan.families:
        address, gateway = plan.pod_address(family, index, number), _POD_GATEWAY[family]
        lines.append(_address(address, address.max_prefixlen, "eth0"))
        if family is Family.IPV4:  # IPv6 reaches fe80::/64 on the link by itself
            lines.append(f"route add {gateway} dev eth0 scope link")
        lines.append(f"neigh add {gateway} lladdr {_HOST_MAC} dev eth0 nud permanent")
        lines.append(f"route add default via {gateway} dev eth0")
    return "\n".join(lines) + "\n"
