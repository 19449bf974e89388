"""Numbers and fixed headers of rtnetlink (include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h)."""

from __future__ import annotations

import socket
import struct

from hitless.model.families import Address, Family

__all__ = ["address_family", "family_number"]

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30

GROUP_LINK, GROUP_NEIGH = 1, 3
GROUP_IPV4_ADDR, GROUP_IPV4_ROUTE, GROUP_IPV6_ADDR, GROUP_IPV6_ROUTE = 5, 7, 9, 11

AF_INET, AF_BRIDGE = socket.AF_INET, 7

IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
IFADDR = struct.Struct("=BBBBi")  # struct ifaddrmsg: family, prefixlen, flags, scope, index
RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
NDMSG = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, ifindex, state, flags, type

IFF_UP, IFF_LOWER_UP = 0x1, 0x10000

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_GROUP, IFLA_EXT_MASK = 1, 3, 4, 10, 18, 27, 29
INFO_KIND, INFO_DATA = 1, 2
SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS

VXLAN_ID, VXLAN_GROUP, VXLAN_LINK, VXLAN_LOCAL, VXLAN_LEARNING = 1, 2, 3, 4, 7
VXLAN_PROXY, VXLAN_RSC, VXLAN_L2MISS, VXLAN_L3MISS, VXLAN_PORT = 11, 12, 13, 14, 15
VXLAN_GROUP6, VXLAN_LOCAL6, VXLAN_GBP, VXLAN_COLLECT_METADATA, VXLAN_GPE = 16, 17, 23, 25, 27

IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_SECONDARY, IFA_F_NODAD = 0x01, 0x02  # of IPv6, SECONDARY is a temporary address

RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 2, 3, 4, 5, 6, 7
RTA_METRICS, RTA_MULTIPATH, RTA_TABLE, RTA_MARK, RTA_VIA, RTA_ENCAP, RTA_NH_ID = 8, 9, 15, 16, 18, 22, 30
RTNH_F_ONLINK = 4
RT_SCOPE_UNIVERSE, RT_SCOPE_NOWHERE = 0, 255
UNICAST = 1
ROUTE_KINDS = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
}
ROUTE_NUMBERS = {name: number for number, name in ROUTE_KINDS.items()}
CLONED = 0x200  # RTM_F_CLONED: a cached route, no entry of a table

NDA_DST, NDA_LLADDR, NDA_CACHEINFO, NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_NH_ID = 1, 2, 3, 6, 7, 8, 13
CACHEINFO = struct.Struct("=IIII")  # struct nda_cacheinfo: confirmed, used, updated, references
NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE, NUD_PERMANENT = 0x02, 0x04, 0x08, 0x10, 0x80
NTF_SELF = 0x02


def family_number(family: Family) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET if family is Family.IPV4 else socket.AF_INET6


def address_family(address: Address) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
