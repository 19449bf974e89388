"""Settings of a device that netlink does not report: checksum offload and GRO (ethtool's ioctl), router advertisements
(a sysctl).

Promise: for devices of ours only. A container that may not write /proc/sys does without the sysctl, as flannel does: no
router sends advertisements through the overlay.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hitless.errors import KernelError
from hitless.kernel.namespaces import Namespace, inside
from hitless.model.links import Device

__all__ = ["accept_no_advertisements", "observed", "switch"]

_SIOCETHTOOL = 0x8946
_GET_CHECKSUM, _SET_CHECKSUM, _GET_GRO, _SET_GRO = 0x16, 0x17, 0x2B, 0x2C  # ETHTOOL_GTXCSUM, STXCSUM, GGRO, SGRO
_VALUE = struct.Struct("=II")  # struct ethtool_value
_REQUEST = struct.Struct("16sP16x")  # struct ifreq


def observed(device: Device, namespace: Namespace) -> Device:
    """The device with ethtool's settings; unknown where the driver does not report them."""

    def ask() -> tuple[bool | None, bool | None]:
        return _get(device.name, _GET_CHECKSUM), _get(device.name, _GET_GRO)

    checksum, gro = inside(namespace, ask)
    return replace(device, tx_checksum=checksum, gro=gro)


def switch(device: Device, before: Device | None, namespace: Namespace) -> None:
    """Apply the desired settings that differ. Raises ``KernelError``."""
    wanted = ((device.tx_checksum, _SET_CHECKSUM, "tx_checksum"), (device.gro, _SET_GRO, "gro"))
    for value, command, name in wanted:
        if value is not None and (before is None or getattr(before, name) is not value):
            inside(namespace, _setter(device.name, command, value))


def _setter(name: str, command: int, value: bool) -> Callable[[], None]:
    def act() -> None:
        try:
            _ethtool(name, command, int(value))
        except OSError as error:
            raise KernelError("switch an offload of", name, error.errno or 0) from error

    return act


def _get(name: str, command: int) -> bool | None:
    try:
        return bool(_ethtool(name, command, 0))
    except OSError:
        return None


def _ethtool(name: str, command: int, value: int) -> int:
    data = array.array("B", _VALUE.pack(command, value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, _REQUEST.pack(name.encode(), data.buffer_info()[0]))
    return int(_VALUE.unpack(data.tobytes())[1])


def accept_no_advertisements(name: str, namespace: Namespace) -> None:
    """Write net.ipv6.conf.NAME.accept_ra=0, as flannel does."""
    with contextlib.suppress(OSError):
        inside(namespace, lambda: Path(f"/proc/sys/net/ipv6/conf/{name}/accept_ra").write_text("0"))
