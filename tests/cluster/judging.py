"""What a drill's outcome says of the tool, and what of the machine that it ran on.

A drill of a network that nobody here has seen may end with any verdict. "Inconclusive" is right where a small machine
kept the tools from seeing, or where rules of others are not understood; a disturbance (a node that starts other pods)
is given a second chance; every other reason means that the tool does not work here, and fails the test with its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

__all__ = ["Judgement", "hint", "judge"]

Judgement = Literal["accepted", "again", "failed"]

_BUSY = (
    r"too busy to see shorter outages",
    r"the watch was up to .* late",
    r"less than half of its rate",
    r"rule events were lost",
    r"failures? without proof \([\d,]+ the prober was starved\)",
)
_FOREIGN = (r"the rules could not be understood",)
_DISTURBED = (
    r"unhealthy before the first restart",
    r"the rules did not carry (\S+ )?egress before",
    r"while a control probe failed too",
    r"while the far end or a control probe was down",
    r"failures? without proof",
    r"no (attempt|word of the rules) within",
    r"^the agent was never restarted$",  # beside the reason why
)


def judge(reasons: Iterable[str], *, foreign: bool) -> Judgement:
    """What to make of an inconclusive drill; ``foreign``: the rules of others' agent stand beside the stand-in's."""
    fine = (*_BUSY, *(_FOREIGN if foreign else ()))
    said = list(reasons)
    if said and all(_any(fine, one) for one in said):
        return "accepted"
    return "again" if said and all(_any((*fine, *_DISTURBED), one) for one in said) else "failed"


def hint(reasons: Iterable[str]) -> str:
    """What most likely keeps a drill from working on this cluster, and what helps."""
    if any("unhealthy before" in one or "no attempt within" in one for one in reasons):
        return (
            "do firewalls let pods reach the other nodes' ports 7801 to 7880 (TCP and UDP), and ping them? "
            "Else name a far end: HITLESS_TO=farend://HOST (hitless farend), or any URL"
        )
    return ""


def _any(patterns: Iterable[str], text: str) -> bool:
    return any(re.search(one, text) for one in patterns)
