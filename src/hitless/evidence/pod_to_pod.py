"""Connections between pods of different nodes, as a part of an agent's verdict.

Problem: an agent whose restart costs no egress may still cut pods off from pods on other nodes. Promise: these
connections are judged by the same criteria as egress, from their own record (``Record.pods``), without the rules;
each of their reasons begins with "pod to pod". If they were planned and not attempted, the drill is invalid.
Next stage: ``verdict``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hitless.evidence.criteria import VerdictReasons, reasons
from hitless.evidence.figures import count
from hitless.evidence.phrases import plural
from hitless.evidence.reason_codes import ReasonCode, VerdictReason
from hitless.evidence.records import Record
from hitless.evidence.settings import Settings

__all__ = ["with_pods"]


def with_pods(record: Record, settings: Settings, egress: VerdictReasons) -> VerdictReasons:
    """The reasons for egress, and those for connections between pods, if there are any or were planned."""
    if record.pods is None:
        if not settings.pod_to_pod or not record.spans:
            return egress
        unattempted = VerdictReason(ReasonCode.NO_TRAFFIC, "no connection was attempted").between_pods()
        return replace(egress, invalid=(*egress.invalid, unattempted))
    own = replace(settings, by_traffic=True, far_end=True, evidence=False)
    found = reasons(record.pods, count(record.pods), own, whole=True)
    attempted, lost = sum(one.sent for one in record.pods.attempts), len(record.pods.losses)
    passed = VerdictReason(ReasonCode.NOTHING_LOST, f"{lost} of {attempted:,} attempts lost").between_pods()
    delayed = sum(one.delayed for one in record.pods.attempts)
    # a path that is missing for less than a retry's interval costs no connection, only time
    answered = VerdictReason(ReasonCode.DELAYED, f"{plural(delayed, 'attempt')} answered only after a retry")
    late = (answered.between_pods(),) if delayed else ()
    return VerdictReasons(
        invalid=(*egress.invalid, *_between_pods(found.invalid, egress.invalid)),
        failures=(*egress.failures, *_between_pods(found.failures, egress.failures)),
        doubts=(*egress.doubts, *_between_pods(found.doubts, egress.doubts)),
        passed=(*egress.passed, passed, *late),
        remarks=(*egress.remarks, *late),
    )


def _between_pods(found: Iterable[VerdictReason], egress: tuple[VerdictReason, ...]) -> list[VerdictReason]:
    """Reasons that concern the node itself (a restart that failed, for example) are listed once, with egress."""
    return [one.between_pods() for one in found if one not in egress]
