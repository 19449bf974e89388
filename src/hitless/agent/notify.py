"""systemd's notification protocol (sd_notify(3)): one datagram, no library."""

from __future__ import annotations

import socket
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """Tells the service manager, where there is one; a manager that cannot be reached is no error of ours."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        watchdog = environment.get("WATCHDOG_USEC", "")
        # systemd's advice: half of the watchdog's time
        self.watchdog: float | None = int(watchdog) / 2e6 if watchdog.isdigit() and int(watchdog) > 0 else None

    def say(self, *lines: str) -> None:
        """Send lines such as READY=1, STATUS=…, STOPPING=1, WATCHDOG=1."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)  # where a manager stands still and its queue is full, the rules go on
                sender.sendto("\n".join(lines).encode(), address)
        except OSError:
            return
