"""Counting attempts: each one that was begun ends exactly once, in the tenth of a second in which it began.

Problem: a verdict needs "how many of how many, and when", not one line per attempt at 1,000 a second. Promise: a bucket
(100 ms, kind, family) is written when all of its attempts have ended, so that ok + lost == sent; if the prober must end
before that, the bucket says how many are undecided. Memory is bounded by the open attempts. Pure: the caller passes the
time. Next stage: ``hitless.evidence`` reads the buckets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hitless.model.events import Attempts, Cause, Kind
from hitless.model.families import Family
from hitless.probe.kinds import KINDS

__all__ = ["INTERVAL_NS", "Bucket", "Ledger"]

INTERVAL_NS = 100_000_000


class Bucket:
    """The attempts of one kind and family that began in one interval."""

    __slots__ = ("delayed", "family", "kind", "latencies", "leaked", "ledger", "lost", "max_lag", "ok", "sent", "t")

    def __init__(self, ledger: Ledger, t: int, kind: Kind, family: Family) -> None:
        self.ledger = ledger
        self.t = t
        self.kind = kind
        self.family = family
        self.sent = self.ok = self.lost = self.delayed = self.leaked = self.max_lag = 0
        self.latencies: list[int] = []

    @property
    def open(self) -> int:
        """How many of its attempts have not ended."""
        return self.sent - self.ok - self.lost

    def answered(self, latency: int, *, delayed: bool = False, leaked: bool = False) -> None:
        """One attempt was answered ``latency`` nanoseconds after its first packet."""
        self.ok += 1
        self.latencies.append(latency)
        totals = self.ledger.totals
        totals[f"{self.kind}_ok"] += 1
        if delayed:
            self.delayed += 1
            totals[f"{self.kind}_delayed"] += 1
        if leaked:
            self.leaked += 1
            totals[f"{self.kind}_leaked"] += 1

    def failed(self, cause: Cause) -> None:
        """One attempt was lost."""
        self.lost += 1
        self.ledger.totals[f"{self.kind}_lost"] += 1
        self.ledger.totals[f"cause_{cause}"] += 1

    def event(self) -> Attempts:
        """The bucket as an event."""
        ordered = sorted(self.latencies)
        p50 = p99 = highest = 0
        if ordered:
            # nearest rank: the smallest latency that at least this share of the latencies does not exceed
            p50, p99 = (ordered[max(0, -(-len(ordered) * percent // 100) - 1)] for percent in (50, 99))
            highest = ordered[-1]
        return Attempts(
            t=self.t,
            stream=self.ledger.stream,
            interval_ns=INTERVAL_NS,
            kind=self.kind,
            family=self.family.value,
            sent=self.sent,
            ok=self.ok,
            lost=self.lost,
            undecided=self.open,
            delayed=self.delayed,
            leaked=self.leaked,
            max_lag_ns=self.max_lag,
            latency_p50_ns=p50,
            latency_p99_ns=p99,
            latency_max_ns=highest,
        )


class Ledger:
    """The open buckets, and the totals of all buckets. ``stream`` marks the events of a control."""

    def __init__(self, stream: str = "") -> None:
        self.stream = stream
        self._buckets: dict[tuple[int, Kind, Family], Bucket] = {}
        self.totals: Counter[str] = Counter()

    def begin(self, kind: Kind, family: Family, at: int, lag: int = 0) -> Bucket:
        """Count an attempt that was sent at ``at``, ``lag`` after its planned time; it ends by the bucket's methods."""
        key = (at // INTERVAL_NS, kind, family)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self, key[0] * INTERVAL_NS, kind, family)
        bucket.sent += 1
        if lag > bucket.max_lag:
            bucket.max_lag = lag
        self.totals[f"{kind}_sent"] += 1
        return bucket

    def harvest(self, now: int, *, whole: bool = True) -> Iterator[Attempts]:
        """Remove and return the buckets whose interval is over; ``whole``: only if all their attempts have ended.

        ``now`` must not be later than the time of any ``begin`` that follows.
        """
        over = [(key, bucket) for key, bucket in self._buckets.items() if bucket.t + INTERVAL_NS <= now]
        done = [key for key, bucket in over if not (whole and bucket.open)]
        for key in sorted(done):
            yield self._buckets.pop(key).event()

    @property
    def open(self) -> int:
        """How many attempts have not ended."""
        return sum(bucket.open for bucket in self._buckets.values())

    def begun(self) -> int:
        """How many attempts were begun, streams included: the sum of all buckets' ``sent``."""
        return sum(count for name, count in self.totals.items() if name.endswith("_sent"))

    def sent(self) -> int:
        """How many attempts were begun, without streams."""
        return sum(self.totals[f"{kind}_sent"] for kind in KINDS)

    def lost(self) -> int:
        """How many attempts were lost, without streams."""
        return sum(self.totals[f"{kind}_lost"] for kind in KINDS)
