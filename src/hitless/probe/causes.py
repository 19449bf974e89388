"""The cause of a failed attempt, as far as the prober can know it, and the verdict on a run.

Problem: the same missing answer can be a gap, a far end that is down, or a prober that was not scheduled. Promise: pure
functions from what was seen (an errno, how long the loop slept, the control target's results in the same time) to a
``Cause`` and to a verdict. Gaps and poisoned flows are found by ``hitless.evidence``, which also has the rules' stream.
Next stages: ``outcomes`` writes the cause, ``hitless.cli.probe`` exits with the verdict.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Literal, get_args

from hitless.model.events import Cause, Kind

__all__ = ["Cause", "ProbeVerdict", "cause_of_errno", "cause_of_silence", "verdict"]

ProbeVerdict = Literal["pass", "fail", "inconclusive"]

_REFUSED = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE})
_UNREACHABLE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL, errno.ENODEV}
)
_TIMEOUT = frozenset({errno.ETIMEDOUT})


def cause_of_errno(number: int) -> Cause:
    """The cause for a socket's error."""
    if number in _REFUSED:
        return "refused"
    if number in _UNREACHABLE:
        return "unreachable"
    return "timeout" if number in _TIMEOUT else "error"


def cause_of_silence(
    asleep_ns: int, timeout_ns: int, *, control_ok: int = 0, control_lost: int = 0, ok: int = 0
) -> Cause:
    """The cause of an attempt that was not answered.

    ``asleep_ns`` is how long the prober slept during the attempt: from half the timeout on, that may be the cause.
    ``ok`` is how many other attempts of that time were answered: if none was, and those to a control (which needs no
    translation) failed too, the far end or the whole network is down.
    """
    if asleep_ns * 2 >= timeout_ns:
        return "starved"
    if ok == 0 and control_ok == 0 and control_lost > 0:
        return "far_end_down"
    return "timeout"


def verdict(totals: Mapping[str, int]) -> ProbeVerdict:
    """The verdict on a run: fail if anything was lost for another reason than the prober's own starvation.

    Inconclusive: nothing was attempted, only starved attempts were lost, some were abandoned before they ended, or more
    than half of the planned ones were skipped.
    """
    sent = sum(totals.get(f"{kind}_sent", 0) for kind in get_args(Kind))
    lost = sum(totals.get(f"{kind}_lost", 0) for kind in get_args(Kind))
    starved = totals.get("cause_starved", 0)
    leaked = sum(count for name, count in totals.items() if name.endswith("_leaked"))
    if lost > starved or leaked or totals.get("stream_breaks", 0):
        return "fail"
    skipped = sum(count for name, count in totals.items() if name.startswith("skipped_"))
    if sent == 0 or starved or totals.get("abandoned", 0) or skipped > sent:
        return "inconclusive"
    return "pass"
