"""Offsets between the nodes' clocks and the driver's: measured, reported, and subtracted from the records.

Problem: streams of several machines are merged by time, and their clocks differ by milliseconds to minutes. Promise:
the offset is measured through the same connection as the streams, by round trips, with its uncertainty; the shift is
applied to every time in an event and to nothing else. A clock that moved during the drill is reported. Next: ``pods``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from hitless.errors import ApiError
from hitless.kube import streams
from hitless.kube.api import Api
from hitless.model.events import Event
from hitless.model.reading import whole_of

__all__ = ["Offset", "measure", "shifted"]

_TIMES = ("t", "begin", "end", "planned", "resynced")
"""Fields of events that are times; everything else in nanoseconds is a duration and ends in ``_ns``."""

_ROUND_TRIPS = 12
_PATIENCE = 20.0
_LONGEST_ANSWER = 64  # bytes of a number of nanoseconds


@dataclass(frozen=True, slots=True)
class Offset:
    """The node's clock minus the driver's, in nanoseconds, and by how much that may be wrong."""

    ns: int
    uncertainty_ns: int

    def __str__(self) -> str:
        return f"{self.ns / 1e6:+.3f} ms, known to {self.uncertainty_ns / 1e6:.3f} ms"


def offset_of(samples: Sequence[tuple[int, int, int]]) -> Offset:
    """From (sent, node's answer, received): the round trip that took least bounds the error best."""
    sent, answer, received = min(samples, key=lambda sample: sample[2] - sample[0])
    return Offset(answer - (sent + received) // 2, (received - sent + 1) // 2)


async def measure(api: Api, pod: str, namespace: str, container: str, now: Callable[[], int]) -> Offset:
    """Measure the clock of a pod's node; raises ``ApiError`` when the pod does not answer."""
    samples: list[tuple[int, int, int]] = []
    command = ["hitless", "relay", "clock"]
    try:
        async with (
            asyncio.timeout(_PATIENCE),
            streams.execute(api, pod, namespace, container, command, stdin=True) as running,
        ):
            for _ in range(_ROUND_TRIPS):
                sent = now()
                await running.write(b"\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    piece = await running.read()
                    if not piece:
                        raise ApiError(f"{namespace}/{pod}: its clock stopped answering", status=500)
                    answer += piece
                    if len(answer) > _LONGEST_ANSWER:
                        raise ValueError("too long")
                samples.append((sent, _nanoseconds(answer), now()))
    except TimeoutError as error:
        raise ApiError(f"{namespace}/{pod}: its clock did not answer within {_PATIENCE:g} s") from error
    except ValueError as error:
        raise ApiError(f"{namespace}/{pod}: its clock says {answer[:80]!r}", status=500) from error
    return offset_of(samples)


def _nanoseconds(answer: bytes) -> int:
    found = whole_of(answer.strip())
    if found is None:
        raise ValueError("no number")
    return found


def shifted(event: Event, ns: int) -> Event:
    """The event with all its times moved by ``ns``; a time of 0 means "none" and stays."""
    changes = {
        name: value + ns
        for name in _TIMES
        if name in event.__struct_fields__ and isinstance(value := getattr(event, name), int) and value
    }
    return msgspec.structs.replace(event, **changes)
