"""Why a verdict is what it is: a code for programs, a sentence for users.

Promise: a code never changes its meaning. It is in the JSON of a verdict (``reason_codes``), and in the JUnit and
Prometheus reports; sentences may be worded differently in any release, and nothing is decided by them. Described in
docs/drill.md. Next stage: ``criteria``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

__all__ = ["ReasonCode", "VerdictReason"]


class ReasonCode(StrEnum):
    """What was found. The same code may occur several times, for several families, tools or nodes."""

    # the drill proves nothing
    NO_TRAFFIC = "no_traffic"
    NEVER_RESTARTED = "never_restarted"
    NO_RESTART_EVIDENCE = "no_restart_evidence"
    NO_BASELINE = "no_baseline"
    UNHEALTHY_BEFORE = "unhealthy_before"
    NOT_CARRIED_BEFORE = "not_carried_before"
    LEAKED_BEFORE = "leaked_before"
    # failures
    LOST = "lost"
    LOST_UNLISTED = "lost_unlisted"
    GAP = "gap"
    NOT_CARRIED_AT_END = "not_carried_at_end"
    LEAKED = "leaked"
    LOST_OUTSIDE = "lost_outside"
    POISONED = "poisoned"
    STREAMS_BROKEN = "streams_broken"
    # doubts
    NOT_SENT = "not_sent"
    UNDECIDED = "undecided"
    TOOL_ERROR = "tool_error"
    RESTART_FAILED = "restart_failed"
    NO_RECOVERY = "no_recovery"
    NO_RECOVERY_TRAFFIC = "no_recovery_traffic"
    ENDED_BY_ITSELF = "ended_by_itself"
    FAILURES_WITHOUT_PROOF = "failures_without_proof"
    CONTROL_FAILED_TOO = "control_failed_too"
    STREAMS_BROKEN_OTHERWISE = "streams_broken_otherwise"
    LOG_DIFFERS = "log_differs"
    FAR_END_FULL = "far_end_full"
    PROBER_LATE = "prober_late"
    WATCH_LATE = "watch_late"
    CANNOT_TELL = "cannot_tell"
    RULE_EVENTS_LOST = "rule_events_lost"
    NO_TRAFFIC_OF_FAMILY = "no_traffic_of_family"
    TOO_FEW_ATTEMPTS = "too_few_attempts"
    RATE_TOO_LOW = "rate_too_low"
    NO_RECORD = "no_record"
    RECORD_CUT_OFF = "record_cut_off"
    NO_RULE_STATE = "no_rule_state"
    LOG_CUT_OFF = "log_cut_off"
    # with a pass, and remarks
    NOTHING_LOST = "nothing_lost"
    DELAYED = "delayed"
    STANDBY_NOT_NEEDED = "standby_not_needed"
    STANDBY_BRIDGED = "standby_bridged"


@dataclass(frozen=True, slots=True)
class VerdictReason:
    """A reason with its figures in ``text``. ``pod_to_pod``: it concerns connections between pods of different nodes,
    not those to the outside. ``quoted``: a tool's message that is in the text, so that it is not listed again."""

    code: ReasonCode
    text: str
    pod_to_pod: bool = False
    quoted: str = ""

    @property
    def name(self) -> str:
        """The code in reports: ``lost``, ``pod_to_pod_lost``."""
        return f"pod_to_pod_{self.code}" if self.pod_to_pod else self.code.value

    def between_pods(self) -> VerdictReason:
        """The same reason, of connections between pods."""
        return replace(self, text=f"pod to pod: {self.text}", pod_to_pod=True)
