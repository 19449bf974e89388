"""Reports: the same story in six forms, rendered from a log's story and verdict and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from hitless.cleaning import in_json
from hitless.evidence import provenance
from hitless.evidence.records import RecordedDrill
from hitless.evidence.reports import html, junit, prometheus, svg
from hitless.evidence.verdict import Verdict

__all__ = ["FORMATS", "as_json", "render"]


def as_json(told: RecordedDrill, verdict: Verdict) -> str:
    """The verdict as one JSON object; its schema stands in docs/drill.md."""
    found = msgspec.to_builtins(verdict)
    found |= {"record": msgspec.to_builtins(provenance.provenance(told)), "cite": provenance.cite(told, verdict)}
    return in_json(msgspec.json.format(msgspec.json.encode(found), indent=2).decode()) + "\n"


def _terminal(told: RecordedDrill, verdict: Verdict) -> str:
    from hitless.evidence.reports import terminal

    return terminal.text(told, verdict)


FORMATS: Mapping[str, Callable[[RecordedDrill, Verdict], str]] = MappingProxyType(
    {
        "terminal": _terminal,
        "html": html.render,
        "svg": svg.render,
        "json": as_json,
        "junit": junit.render,
        "prometheus": prometheus.render,
    }
)
"""How a log can be rendered, by the word of ``hitless report --format``."""


def render(form: str, told: RecordedDrill, verdict: Verdict) -> str:
    """The report in one of ``FORMATS``, as text."""
    return FORMATS[form](told, verdict)
