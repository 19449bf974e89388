"""What this process may do, and becoming root of a user namespace where it may not.

Problem: making namespaces, links and rules needs capabilities that ordinary users do not have; inside a user namespace
of their own they have them. Promise: ``privileged`` checks capabilities, not the user's number (root in a container may
have none); after ``ensure`` the process may do the same for root and for others, inside its namespaces only. It must
be called before the first thread is started.
"""

from __future__ import annotations

import os
from pathlib import Path

from hitless.errors import MissingError
from hitless.kernel.namespaces import CLONE_NEWUSER, unshare

__all__ = ["ensure", "enter_user_namespace", "net_admin", "privileged"]

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21


def privileged(status: str | None = None) -> bool:
    """Whether this process may make network and mount namespaces by itself (CapEff of /proc/self/status)."""
    return _holds(status, _CAP_NET_ADMIN, _CAP_SYS_ADMIN)


def net_admin(status: str | None = None) -> bool:
    """Whether this process may change the rules of its network namespace."""
    return _holds(status, _CAP_NET_ADMIN)


def _holds(status: str | None, *bits: int) -> bool:
    text = Path("/proc/self/status").read_text() if status is None else status
    for line in text.splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return all(held >> bit & 1 for bit in bits)
    return False


def enter_user_namespace() -> None:
    """Become root of a new user namespace, in which only the caller's own user and group exist.

    The process must be single-threaded. Raises ``MissingError`` when the kernel does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as error:
        raise MissingError(
            f"this process may not map itself to root in a user namespace ({error.strerror})",
            remedy="run it as root, or allow user namespaces (kernel.apparmor_restrict_unprivileged_userns=0)",
        ) from error


def ensure() -> bool:
    """Enter a user namespace unless the capabilities are there already; whether one was entered."""
    if privileged():
        return False
    enter_user_namespace()
    return True
