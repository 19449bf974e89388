"""Reads the keys of all subnets from etcd, in a thread of its own: one list, then one watch.

Problem: an endpoint may be away, end its watches at once, or give a response that is not understood. Promise: the
reading goes on until it is stopped, with growing waits and at another endpoint; every change and every failure goes to
``put``. Next stage: ``source``.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hitless.errors import ApiError, HitlessError, ours
from hitless.sources.etcd.client import UNAUTHENTICATED, Etcd
from hitless.sources.etcd.watching import Change, Following

__all__ = ["EtcdAway", "EtcdReachable", "SubnetReader"]

_WAITS = (0.2, 5.0)  # seconds between tries, doubled from the first to the last
_AGAIN = 600.0  # seconds of one watch; before the next one it is checked that etcd's history is still the same
_OUT_OF_RANGE = 11  # gRPC's code: the list's revision was compacted away while it was read


@dataclass(frozen=True, slots=True)
class EtcdAway:
    """Reading failed, and is tried again."""

    why: str


@dataclass(frozen=True, slots=True)
class EtcdReachable:
    """etcd has answered, without a change."""


class SubnetReader:
    """``subnets``: the prefix of the keys. ``run`` is the thread, which ends soon after ``stopping`` is set and the
    client is closed."""

    def __init__(
        self,
        etcd: Etcd,
        subnets: str,
        put: Callable[[Change | EtcdAway | EtcdReachable], None],
        stopping: threading.Event,
    ) -> None:
        self._etcd, self._subnets, self._put, self._stopping = etcd, subnets, put, stopping

    def run(self) -> None:
        """Read until stopped."""
        following, failures = Following(self._subnets), 0
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                if not self._read(following) and time.monotonic() - begun < 1.0:
                    raise ApiError("etcd ends every watch at once")
                failures = 0
                continue
            except ApiError as error:
                problem: HitlessError = error
                if error.status == UNAUTHENTICATED:
                    self._etcd.forget_token()
                elif error.status == _OUT_OF_RANGE:
                    following.again()
                else:
                    self._etcd.next_endpoint()
            except Exception as error:  # noqa: BLE001 - the thread's outermost level: it is reported, and tried again
                problem = ours(error, "following etcd")
                following.again()
            if self._stopping.is_set():
                return
            self._put(EtcdAway(str(problem)))
            self._stopping.wait(min(_WAITS[1], _WAITS[0] * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.0))
            failures += 1

    def _read(self, following: Following) -> bool:
        """Send the next request and read its response to the end; whether it held anything."""
        path, body = following.request()
        try:
            if path != "watch":
                for change in following.page(self._etcd.call(path, body)):
                    self._put(change)
                return True
            received = False
            until = time.monotonic() + _AGAIN
            with self._etcd.stream(path, body) as results:
                for result in results:
                    changes: list[Change | EtcdReachable] = [*following.result(result)]
                    received |= bool(changes)
                    for one in changes or [EtcdReachable()]:
                        self._put(one)
                    if following.lists() or time.monotonic() > until:
                        break
            return received
        except ValueError as error:
            following.again()
            raise ApiError(f"etcd {path}: the answer is not understood ({error})") from error
