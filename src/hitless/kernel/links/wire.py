"""rtnetlink's numbers and fixed headers (include/uapi/linux/rtnetlink.h, if_link.h, neighbour.h)."""

from __future__ import annotations

import socket
import struct

from hitless.model.families import Family

__all__ = ["family_number"]

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30

GROUP_LINK, GROUP_NEIGH = 1, 3
GROUP_IPV4_ADDR, GROUP_IPV4_ROUTE, GROUP_IPV6_ADDR, GROUP_IPV6_ROUTE = 5, 7, 9, 11

AF_BRIDGE = 7

IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
IFADDR = struct.Struct("=BBBBi")  # struct ifaddrmsg: family, prefixlen, flags, scope, index
RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
NDMSG = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, ifindex, state, flags, type

IFF_UP = 0x1

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_EXT_MASK = 1, 3, 4, 18, 29
INFO_KIND, INFO_DATA = 1, 2
SKIP_STATS = 8  # RTEXT_FILTER_SKIP_STATS

VXLAN_ID, VXLAN_GROUP, VXLAN_LINK, VXLAN_LOCAL, VXLAN_TTL, VXLAN_TOS, VXLAN_LEARNING = 1, 2, 3, 4, 5, 6, 7
VXLAN_PROXY, VXLAN_RSC, VXLAN_L2MISS, VXLAN_L3MISS, VXLAN_PORT = 11, 12, 13, 14, 15
VXLAN_GROUP6, VXLAN_LOCAL6, VXLAN_GBP, VXLAN_COLLECT_METADATA, VXLAN_GPE = 16, 17, 23, 25, 27
VXLAN_VNIFILTER = 30

IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_NODAD = 0x02

RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 2, 3, 4, 5, 6, 7
RTA_METRICS, RTA_MULTIPATH, RTA_TABLE, RTA_VIA, RTA_ENCAP, RTA_NH_ID = 8, 9, 15, 18, 22, 30
RTNH_F_ONLINK = 4
RT_SCOPE_NOWHERE = 255
UNICAST, LOCAL, BLACKHOLE = 1, 2, 6
ROUTE_KINDS = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
}
ROUTE_NUMBERS = {name: number for number, name in ROUTE_KINDS.items()}
CLONED = 0x200  # RTM_F_CLONED: a cached route, no entry of a table

NDA_DST, NDA_LLADDR, NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_MASTER, NDA_SRC_VNI, NDA_NH_ID = 1, 2, 6, 7, 8, 9, 11, 13
NUD_PERMANENT = 0x80
NTF_SELF = 0x02


def family_number(family: Family) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
