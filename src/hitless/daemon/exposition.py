"""Prometheus' text format (0.0.4), for both daemons' /metrics and for a drill's report.

Problem: several renderers would escape differently. Promise: HELP and TYPE for every name, in the order given; label
values are cleaned, bounded in length and escaped; two samples that are the same after that become one, the later one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hitless.cleaning import clean

__all__ = ["CONTENT_TYPE", "LONGEST_LABEL", "Labels", "Sample", "exposition", "label_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LONGEST_LABEL = 200
Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    labels: Mapping[str, str] = {}


def label_text(value: str) -> str:
    """A label's value as it is exposed: values that differ only beyond its length are one series."""
    return clean(value, LONGEST_LABEL)


def exposition(known: Mapping[str, tuple[str, str]], samples: Iterable[Sample]) -> str:
    """The whole page. ``known``: (type, help) of every name, in the page's order; a sample of another name is refused
    with ``KeyError``."""
    series: dict[str, dict[Labels, float]] = {name: {} for name in known}
    for name, value, labels in samples:
        series[name][tuple((key, label_text(text)) for key, text in labels.items())] = value
    lines: list[str] = []
    for name, (kind, text) in known.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for labelled, value in series[name].items():
            shown = ",".join(f'{key}="{_escaped(of)}"' for key, of in labelled)
            lines.append(f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
