"""Connections between pods of different nodes, as a part of an agent's verdict.

Problem: an agent whose restart costs no egress may still cut pods off from pods on other nodes. Promise: these
connections are judged by the same criteria as egress, from their own record (``Record.pods``), without the rules;
each of their reasons begins with "pod to pod". If they were planned and not attempted, the drill is invalid.
Next stage: ``verdict``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hitless.evidence.criteria import VerdictReasons, plural, reasons
from hitless.evidence.figures import count
from hitless.evidence.records import Record
from hitless.evidence.settings import Settings

__all__ = ["with_pods"]

_PREFIX = "pod to pod: "


def with_pods(record: Record, settings: Settings, egress: VerdictReasons) -> VerdictReasons:
    """The reasons for egress, and those for connections between pods, if there are any or were planned."""
    if record.pods is None:
        if not settings.pod_to_pod or not record.spans:
            return egress
        return replace(egress, invalid=(*egress.invalid, f"{_PREFIX}no connection was attempted"))
    own = replace(settings, by_traffic=True, far_end=True, evidence=False)
    found = reasons(record.pods, count(record.pods), own, whole=True)
    attempted, lost = sum(one.sent for one in record.pods.attempts), len(record.pods.losses)
    passed = f"{_PREFIX}{lost} of {attempted:,} attempts lost"
    delayed = sum(one.delayed for one in record.pods.attempts)
    # a path that is missing for less than a retry's interval costs no connection, only time
    late = (f"{_PREFIX}{plural(delayed, 'attempt')} answered only after a retry",) if delayed else ()
    return VerdictReasons(
        invalid=(*egress.invalid, *_prefixed(found.invalid, egress.invalid)),
        failures=(*egress.failures, *_prefixed(found.failures, egress.failures)),
        doubts=(*egress.doubts, *_prefixed(found.doubts, egress.doubts)),
        passed=(*egress.passed, passed, *late),
        remarks=(*egress.remarks, *late),
    )


def _prefixed(texts: Iterable[str], egress: tuple[str, ...]) -> list[str]:
    """Reasons that concern the node itself (a restart that failed, for example) are listed once, with egress."""
    return [f"{_PREFIX}{text}" for text in texts if text not in egress]
