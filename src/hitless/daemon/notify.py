"""systemd's notification protocol (sd_notify(3)): one datagram, no library."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from hitless.cleaning import clean
from hitless.model.reading import whole_of

__all__ = ["Notifier"]


class Notifier:
    """Sends notifications to the service manager, if there is one; failures are ignored."""

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
                sender.setblocking(False)  # a manager that hangs with a full queue must not block us
                sender.sendto("\n".join(clean(line) for line in lines).encode(), address)
        except OSError:
            return
