"""The kernel interface of iptables-legacy: two getsockopt calls on an ordinary socket.

Problem: Python's ``socket.getsockopt`` cannot pass input to the kernel, and a request for a table that does not exist
*creates* it, with its hooks. Promise: ``Tables`` checks ``/proc/net/ip_tables_names`` first, so that reading never
changes the kernel; for a missing table it returns ``None``. One object serves one namespace and family; its file
descriptors stay in that namespace. It never uses IPT_SO_SET_REPLACE. Next stage: ``tables`` (entries to model rules).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass

from hitless.errors import KernelError, MissingError
from hitless.kernel.namespaces import Namespace, inside
from hitless.kernel.ports import only_ours
from hitless.model.families import Family

__all__ = ["HOOKS", "TABLES", "Info", "TableRead", "Tables", "decode_info"]

HOOKS = 5
"""NF_INET_NUMHOOKS without ingress: PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING."""

TABLES = ("raw", "mangle", "nat", "filter", "security")
"""The tables of a family; the kernel creates them on demand."""

_SO_GET_INFO = 64  # IPT_SO_GET_INFO = IP6T_SO_GET_INFO
_SO_GET_ENTRIES = 65  # IPT_SO_GET_ENTRIES = IP6T_SO_GET_ENTRIES
_INFO = struct.Struct("=32sI5I5III")  # struct ipt_getinfo: name, valid_hooks, hook_entry, underflow, num_entries, size
_ENTRIES_HEAD = 40  # struct ipt_get_entries: name[32], size, padding to the 8-byte alignment of the counters
_ATTEMPTS = 16  # EAGAIN means that the table was replaced between the two calls

_LEVELS = {Family.IPV4: (socket.AF_INET, socket.IPPROTO_IP), Family.IPV6: (socket.AF_INET6, socket.IPPROTO_IPV6)}
_NAMES = {Family.IPV4: "/proc/thread-self/net/ip_tables_names", Family.IPV6: "/proc/thread-self/net/ip6_tables_names"}


@dataclass(frozen=True, slots=True)
class Info:
    """GET_INFO of a table: which hooks it has, where their chains begin and where their policies are (byte offsets into
    the entries), the number of entries, and their size in bytes."""

    valid_hooks: int
    hook_entry: tuple[int, ...]
    underflow: tuple[int, ...]
    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class TableRead:
    """A table as read: GET_INFO as bytes and as values, and the entries."""

    raw: bytes
    info: Info
    entries: bytes


class _InfoRequest:
    """The reusable buffers of a GET_INFO call, which is made hundreds of times a second."""

    __slots__ = ("address", "buffer", "length", "length_address")

    def __init__(self, table: str) -> None:
        self.buffer = ctypes.create_string_buffer(_INFO.size)
        struct.pack_into("=32s", self.buffer, 0, table.encode())
        self.length = ctypes.c_uint32(_INFO.size)
        self.address = ctypes.addressof(self.buffer)
        self.length_address = ctypes.addressof(self.length)


class Tables:
    """The legacy tables of one family in one namespace; close it when done (or use it in ``with``)."""

    def __init__(self, namespace: Namespace, family: Family) -> None:
        self.family = family
        domain, self._level = _LEVELS[family]
        self._names_fd: int | None = None
        self._known: frozenset[str] = frozenset()
        self._requests: dict[str, _InfoRequest] = {}
        self._call = ctypes.CDLL(None, use_errno=True).getsockopt
        self._call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        with only_ours("open", f"{family.iptables}-legacy tables"):
            self._socket = inside(namespace, lambda: self._open(domain))
        self._fd = self._socket.fileno()

    def _open(self, domain: int) -> socket.socket:
        try:
            self._names_fd = os.open(_NAMES[self.family], os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._names_fd = None  # a kernel without the old xtables path, or its module is not loaded
        except PermissionError as error:
            raise MissingError(
                f"{self.family.iptables}-legacy's tables may not be read", remedy="run as root (CAP_NET_ADMIN)"
            ) from error
        # A datagram socket will do: the options are those of the address family, not of raw sockets.
        return socket.socket(domain, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors; may be called again."""
        self._socket.close()
        if self._names_fd is not None:
            os.close(self._names_fd)
            self._names_fd = None

    def present(self, table: str) -> bool:
        """Whether the kernel has created this table in this namespace; the check creates nothing."""
        return table in self._known or table in self.names()

    def names(self) -> frozenset[str]:
        """The tables that the kernel has created in this namespace."""
        # a table, once created, exists as long as the namespace
        if self._names_fd is not None and not self._known.issuperset(TABLES):
            with only_ours("list", f"{self.family.iptables}-legacy tables"):
                self._known = frozenset(os.pread(self._names_fd, 4096, 0).decode("ascii", "replace").split())
        return self._known

    def info_bytes(self, table: str) -> bytes | None:
        """GET_INFO as the kernel wrote it, for cheap comparison; ``None`` if the table does not exist."""
        if not self.present(table):
            return None
        request = self._requests.get(table)
        if request is None:
            request = self._requests[table] = _InfoRequest(table)
        if self._call(self._fd, self._level, _SO_GET_INFO, request.address, request.length_address) != 0:
            number = ctypes.get_errno()
            if number in (errno.ENOENT, errno.ENOPROTOOPT):
                return None
            raise self._refused("read", table, number)
        return request.buffer.raw

    def info(self, table: str) -> Info | None:
        """GET_INFO; ``None`` if the table does not exist."""
        raw = self.info_bytes(table)
        return None if raw is None else decode_info(raw)

    @only_ours("read", "a legacy table")
    def entries(self, table: str) -> TableRead | None:
        """The table's entries with the info that belongs to them; ``None`` if the table does not exist."""
        for _ in range(_ATTEMPTS):
            raw = self.info_bytes(table)
            if raw is None:
                return None
            info = decode_info(raw)
            buffer = ctypes.create_string_buffer(_ENTRIES_HEAD + info.size)
            struct.pack_into("=32sI", buffer, 0, table.encode(), info.size)
            length = ctypes.c_uint32(_ENTRIES_HEAD + info.size)
            if self._call(self._fd, self._level, _SO_GET_ENTRIES, buffer, ctypes.byref(length)) == 0:
                # The hook offsets belong to the entries only if no other table of equal size came in between.
                if self.info_bytes(table) == raw:
                    return TableRead(raw, info, ctypes.string_at(ctypes.addressof(buffer) + _ENTRIES_HEAD, info.size))
                continue
            number = ctypes.get_errno()
            if number != errno.EAGAIN:
                raise self._refused("read", table, number)
        raise KernelError("read", f"{self.family.iptables}-legacy table {table}", errno.EAGAIN, "it kept changing")

    def _refused(self, operation: str, table: str, number: int) -> KernelError | MissingError:
        if number == errno.EPERM:
            return MissingError(
                f"{self.family.iptables}-legacy's table {table} may not be read", remedy="run as root (CAP_NET_ADMIN)"
            )
        return KernelError(operation, f"{self.family.iptables}-legacy table {table}", number)


def decode_info(raw: bytes) -> Info:
    """GET_INFO's bytes as values; offsets of hooks that the table does not have are 0 (the kernel leaves them
    undefined)."""
    _name, valid, *numbers = _INFO.unpack(raw)
    entry = tuple(at if valid >> hook & 1 else 0 for hook, at in enumerate(numbers[:HOOKS]))
    underflow = tuple(at if valid >> hook & 1 else 0 for hook, at in enumerate(numbers[HOOKS : 2 * HOOKS]))
    return Info(valid, entry, underflow, numbers[-2], numbers[-1])
