"""systemd's notification protocol (sd_notify(3)): one datagram, no library."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from hitless.cleaning import clean
from hitless.model.reading import whole_of

__all__ = ["Notifier"]


class Notifier:
    """Tells the service manager, where there is one; a manager that cannot be reached is no error of ours."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        watchdog = whole_of(environment.get("WATCHDOG_USEC", ""))
        self.watchdog: float | None = watchdog / 2e6 if watchdog else None  # systemd's advice: half of the time

    def say(self, *lines: str) -> None:
        """Send lines such as READY=1, STATUS=…, STOPPING=1, WATCHDOG=1."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)  # where a manager stands still and its queue is full, the rules go on
                sender.sendto("\n".join(clean(line) for line in lines).encode(), address)
        except OSError:
            return
