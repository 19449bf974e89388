"""What connections between pods of different nodes say about an agent: the other half of its work.

Problem: an agent whose restart costs no egress may still cut pods off from pods on other nodes. Promise: these are
judged by the same rules as egress, from their own record (``Record.pods``), each reason with "pod to pod" in front; the
rules of the node play no part. Where they were to be tried and were not, nothing is proven. Next stage: ``verdict``
puts both together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hitless.evidence.criteria import VerdictReasons, plural, reasons
from hitless.evidence.figures import count
from hitless.evidence.records import Record, Settings

__all__ = ["with_pods"]

_MARK = "pod to pod: "


def with_pods(record: Record, settings: Settings, egress: VerdictReasons) -> VerdictReasons:
    """The reasons of egress, and those of the connections between pods where there are any or should be."""
    if record.pods is None:
        if not settings.pod_to_pod or not record.spans:
            return egress
        return replace(egress, void=(*egress.void, f"{_MARK}no connection was attempted"))
    own = replace(settings, by_traffic=True, far_end=True, evidence=False)
    found = reasons(record.pods, count(record.pods), own, whole=True)
    attempted, lost = sum(one.sent for one in record.pods.attempts), len(record.pods.losses)
    good = f"{_MARK}{lost} of {attempted:,} attempts lost"
    delayed = sum(one.delayed for one in record.pods.attempts)
    # a path that is gone for less than a retry costs no connection, but the time until the retry
    late = (f"{_MARK}{plural(delayed, 'attempt')} answered only after a retry",) if delayed else ()
    return VerdictReasons(
        void=(*egress.void, *_marked(found.void, egress.void)),
        harm=(*egress.harm, *_marked(found.harm, egress.harm)),
        doubt=(*egress.doubt, *_marked(found.doubt, egress.doubt)),
        good=(*egress.good, good, *late),
        aside=(*egress.aside, *late),
    )


def _marked(texts: Iterable[str], before: tuple[str, ...]) -> list[str]:
    """What is the node's own trouble (a restart that never came to ready, say) is told once."""
    return [f"{_MARK}{text}" for text in texts if text not in before]
