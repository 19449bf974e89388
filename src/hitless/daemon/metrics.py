"""A daemon's counters and gauges.

Problem: Prometheus' client library costs 10 MB and 0.1 s of start, and a daemon has a dozen metrics. Promise: only the
metrics of the given catalogue exist; the number of series of each is bounded (writers' names come from outside), and
the rest is counted as "other". One thread writes, another may read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hitless.daemon.exposition import Labels, Sample, exposition, label_text

__all__ = ["Metrics"]

_MOST_SERIES = 64


class Metrics:
    """Numbers by name and labels. ``known``: type and help of every metric."""

    def __init__(self, known: Mapping[str, tuple[str, str]]) -> None:
        self._known = known
        self._values: dict[str, dict[Labels, float]] = {}

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Count."""
        series, key = self._series(name, labels)
        series[key] = series.get(key, 0.0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        series, key = self._series(name, labels)
        series[key] = value

    def value(self, name: str, **labels: str) -> float:
        """The current value; 0 where there is none."""
        return self._values.get(name, {}).get(_key(labels), 0.0)

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(self._values.get(name, {}).values())

    def render(self) -> str:
        """Prometheus' text."""
        return exposition(self._known, self._samples())

    def _samples(self) -> Iterator[Sample]:
        for name, (kind, _) in self._known.items():
            series = dict(self._values.get(name, {}))
            if not series and kind == "counter":
                series = {(): 0.0}
            for key, value in sorted(series.items()):
                yield Sample(name, value, dict(key))

    def _series(self, name: str, labels: Mapping[str, str]) -> tuple[dict[Labels, float], Labels]:
        if name not in self._known:
            raise KeyError(name)
        series = self._values.setdefault(name, {})
        key = _key(labels)
        if key not in series and len(series) >= _MOST_SERIES:
            key = tuple((label, "other") for label, _ in key)
        return series, key


def _key(labels: Mapping[str, str]) -> Labels:
    return tuple((label, label_text(text)) for label, text in sorted(labels.items()))
