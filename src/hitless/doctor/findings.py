"""What a check found, and what all of them together say.

A ``problem`` needs action; a ``note`` is worth knowing; ``unknown``: it could not be determined, with the reason. The
exit code is 1 when there is a problem, 2 when something essential is unknown, else 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from hitless.errors import HitlessError, ours

__all__ = ["Diagnosis", "DoctorFinding", "State", "checked"]

State = Literal["ok", "note", "problem", "unknown"]


FindingCode = Literal["", "protected"]
"""``protected``: a standby protects the pods of this node."""


class DoctorFinding(msgspec.Struct, frozen=True):
    """One check: ``id`` is stable, ``title`` a short noun, ``text`` sentences, ``command`` what helps.

    ``code``: what was found, where something depends on it. ``essential``: without an answer to it the whole is
    "cannot tell".
    """

    id: str
    title: str
    state: State
    text: str
    command: str = ""
    essential: bool = False
    code: FindingCode = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All findings in their order. ``subject`` names the node or the cluster; ``summary`` is the answer in a sentence
    (of a node); ``next`` is the command to type next."""

    schema: int = 1
    subject: str
    verdict: Literal["ok", "problem", "unknown"]
    findings: tuple[DoctorFinding, ...]
    next: str
    next_why: str
    hitless: str
    summary: str = ""

    @classmethod
    def of(
        cls,
        subject: str,
        findings: Sequence[DoctorFinding],
        following: tuple[str, str],
        version: str,
        summary: str = "",
    ) -> Diagnosis:
        """Put together: the worst finding is the verdict."""
        states = {one.state for one in findings}
        unknown = any(one.state == "unknown" and one.essential for one in findings)
        verdict: Literal["ok", "problem", "unknown"] = (
            "problem" if "problem" in states else "unknown" if unknown else "ok"
        )
        return cls(
            subject=subject,
            verdict=verdict,
            findings=tuple(findings),
            next=following[0],
            next_why=following[1],
            hitless=version,
            summary=summary,
        )


def checked(
    id: str, title: str, check: Callable[[], Iterable[DoctorFinding] | DoctorFinding], *, essential: bool = False
) -> list[DoctorFinding]:
    """Run a check; what it cannot do is its finding."""
    try:
        found = check()
        return [found] if isinstance(found, DoctorFinding) else list(found)
    except HitlessError as error:
        return [DoctorFinding(id, title, "unknown", str(error), essential=essential)]
    except OSError as error:
        return [DoctorFinding(id, title, "unknown", str(ours(error, title)), essential=essential)]
