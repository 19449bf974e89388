"""Why the guard does what it does: a code with its facts, and the one place that makes sentences of them.

Promise: codes never change their meaning (they are in the journal, in ``status --json`` and in the log as
``reason_code``); nothing is decided by a sentence. Texts from outside (an agent's statement, the reader's
problem with a rule) are facts that are shown and never compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from hitless.model.families import Network

__all__ = ["NOTHING", "PROTECTING", "Code", "GuardState", "Reason"]


class GuardState(StrEnum):
    """What a family's standby is doing, as ``status`` shows it."""

    WAITING = "waiting for rules to learn from"
    WITHDRAWN = "withdrawn"
    CARRYING = "carrying"  # the primary has a gap, and the standby carries the flows
    GAP = "gap"  # the primary has a gap, and the standby does not carry them either
    STANDING_BY = "standing by"
    WATCHING = "watching"  # --observe: it could stand by

    @property
    def code(self) -> str:
        """As one token, for programs."""
        return self.name.lower()


PROTECTING = frozenset({GuardState.STANDING_BY, GuardState.CARRYING})
"""States in which pods are protected."""


class Code(StrEnum):
    """Why the standby is as it is."""

    WHOLE = "whole"
    NOT_YET_PROVEN = "not_yet_proven"
    NOTHING_TO_LEARN_FROM = "nothing_to_learn_from"
    LEARNED = "learned"
    PRIMARY_CHANGED = "primary_changed"
    EXEMPTION_ADDED = "exemption_added"
    PARTLY_TAKEN_AWAY = "partly_taken_away"
    PARTLY_MISSING = "partly_missing"
    RULES_MISSING = "rules_missing"
    CANNOT_TELL_WHETHER_TRANSLATED = "cannot_tell_whether_translated"
    RULES_UNREADABLE = "rules_unreadable"
    SWITCHED_OFF = "switched_off"
    STATEMENT_GONE = "statement_gone"
    STATEMENT_ENDED = "statement_ended"
    NO_EXACT_COPY = "no_exact_copy"
    NO_EXACT_COPY_YET = "no_exact_copy_yet"
    INEXACT_RULES_GONE = "inexact_rules_gone"
    CONTRADICTED = "contradicted"
    LEFT_BY_EARLIER_GUARD = "left_by_earlier_guard"


@dataclass(frozen=True, slots=True)
class Reason:
    """``networks`` that it is about; ``detail``: a statement's source, or why there is no exact copy; ``flows`` that
    were translated wrongly; ``restored``: an unproven standby was replaced by the one before it."""

    code: Code
    networks: tuple[Network, ...] = ()
    detail: str = ""
    flows: int = 0
    restored: bool = False

    def __str__(self) -> str:
        return f"{_sentence(self)}; back to what stood before" if self.restored else _sentence(self)


NOTHING = Reason(Code.NOTHING_TO_LEARN_FROM)


def _sentence(reason: Reason) -> str:
    match reason.code:
        case Code.WHOLE:
            return "whole"
        case Code.NOT_YET_PROVEN:
            return "whole, not yet proven"
        case Code.NOTHING_TO_LEARN_FROM:
            return "no rules to learn from yet"
        case Code.LEARNED:
            return "learned"
        case Code.PRIMARY_CHANGED:
            return "the primary changed"
        case Code.EXEMPTION_ADDED:
            return "the primary exempts flows by a rule"
        case Code.PARTLY_TAKEN_AWAY:
            return "translation of some pod networks was taken away, others keep it"
        case Code.PARTLY_MISSING:
            return "translation of some pod networks is missing"
        case Code.RULES_MISSING:
            return "the primary's rules are missing"
        case Code.CANNOT_TELL_WHETHER_TRANSLATED:
            return f"cannot tell whether {_list(reason.networks)} is still translated"
        case Code.RULES_UNREADABLE:
            return "the rules could not be read, as others change them all the time; it is tried again"
        case Code.SWITCHED_OFF:
            return f"masquerading is switched off: {reason.detail}"
        case Code.STATEMENT_GONE:
            return "masquerading was switched off, and the process or setting that said so cannot be found now"
        case Code.STATEMENT_ENDED:
            return "nothing says any more that masquerading is switched off, and the primary's rules are missing"
        case Code.NO_EXACT_COPY:
            return f"cannot tell what the primary means: {reason.detail}"
        case Code.NO_EXACT_COPY_YET:
            return f"cannot tell yet what the primary means: {reason.detail}"
        case Code.INEXACT_RULES_GONE:
            return "the rules without an exact copy are gone, and the primary's are missing"
        case Code.CONTRADICTED:
            return f"it translated {reason.flows} flows that the primary, whole, left alone"
        case Code.LEFT_BY_EARLIER_GUARD:
            return "the standby stands without its guard"
        case _:
            assert_never(reason.code)


def _list(networks: Iterable[Network]) -> str:
    return ", ".join(map(str, networks))
