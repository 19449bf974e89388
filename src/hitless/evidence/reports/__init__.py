"""Reports: a drill in six formats, rendered from its log and verdict and from nothing else."""

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


def as_json(recorded: RecordedDrill, verdict: Verdict) -> str:
    """The verdict as one JSON object; docs/drill.md has its schema."""
    found = msgspec.to_builtins(verdict)
    found |= {
        "record": msgspec.to_builtins(provenance.provenance(recorded)),
        "cite": provenance.cite(recorded, verdict),
    }
    return in_json(msgspec.json.format(msgspec.json.encode(found), indent=2).decode()) + "\n"


def _terminal(recorded: RecordedDrill, verdict: Verdict) -> str:
    from hitless.evidence.reports import terminal

    return terminal.text(recorded, verdict)


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
"""The formats, by the names of ``hitless report --format``."""


def render(form: str, recorded: RecordedDrill, verdict: Verdict) -> str:
    """The report in one of ``FORMATS``, as text."""
    return FORMATS[form](recorded, verdict)
