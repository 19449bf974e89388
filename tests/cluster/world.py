"""A world outside a cluster of one node: a namespace of its own behind the node, with a far end in it.

Runs inside a privileged pod on the host's network (``python3 -c``, nothing but the image): an unnamed network namespace
with one link to the node, without a route to anything else, so that only translated flows are answered. The kernel
takes all of it away when the process ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import time

FAR, NEAR, LENGTH, LINK = "198.51.100.1", "198.51.100.254", 24, "vethhitless"
# veth…: agents that look for the node's own address or devices (Calico, Cilium, NetworkManager) leave those out
_PATIENCE = 60.0
"""Seconds until the kernel has taken away what an earlier world left: it does so a while after the last process."""
_NEWLINK, _NEWADDR = 16, 20
_REQUEST_ACK, _CREATE_EXCL = 0x5, 0x600
_IFNAME, _LINKINFO, _NET_NS_PID, _INFO_KIND, _INFO_DATA, _VETH_PEER = 3, 18, 19, 1, 2, 1
_UP = 1


def attribute(kind: int, data: bytes) -> bytes:
    """A netlink attribute, padded."""
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def ask(kind: int, flags: int, body: bytes) -> None:
    """One rtnetlink request; raises ``OSError`` with the kernel's number."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        answer = sock.recv(65536)
    error = -struct.unpack_from("=i", answer, 16)[0]
    if error:
        raise OSError(error, os.strerror(error), f"request {kind}")


def link_info(index: int = 0, flags: int = 0) -> bytes:
    """An ifinfomsg."""
    return struct.pack("=BxHiII", 0, 0, index, flags, flags)


def up(name: str, address: str) -> None:
    """Give an interface its address, and bring it up."""
    index = socket.if_nametoindex(name)
    packed = socket.inet_aton(address)
    body = struct.pack("=BBBBi", socket.AF_INET, LENGTH, 0, 0, index) + attribute(2, packed) + attribute(1, packed)
    ask(_NEWADDR, _REQUEST_ACK | _CREATE_EXCL, body)
    ask(_NEWLINK, _REQUEST_ACK, link_info(index, _UP))


def inside(ready: int, made: int) -> None:
    """The child: its own network, and the far end in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if libc.unshare(0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "unshare")
    os.write(ready, b"x")
    os.read(made, 1)
    up("eth0", FAR)
    ask(_NEWLINK, _REQUEST_ACK, link_info(1, _UP))
    command = [sys.executable, "-P", "-m", "hitless", "farend", "--bind", FAR, "--json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as far_end:
        signal.signal(signal.SIGTERM, lambda *_: far_end.terminate())
        sys.exit(far_end.wait())


def main() -> None:
    """Build it, and stay until told to go or until the far end ends."""
    ready, made = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        inside(ready[1], made[0])
    os.read(ready[0], 1)
    peer = link_info() + attribute(_IFNAME, b"eth0\0") + attribute(_NET_NS_PID, struct.pack("=i", child))
    data = attribute(_INFO_DATA, attribute(_VETH_PEER, peer))
    kind = attribute(_IFNAME, LINK.encode() + b"\0") + attribute(_LINKINFO, attribute(_INFO_KIND, b"veth") + data)
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            ask(_NEWLINK, _REQUEST_ACK | _CREATE_EXCL, link_info() + kind)
            break
        except OSError as error:
            if error.errno != errno.EEXIST or time.monotonic() > end:
                raise
            time.sleep(0.2)
    up(LINK, NEAR)
    os.write(made[1], b"x")
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
