"""``hitless guard status``: what the running guard wrote, and what the kernel holds when none runs.

Promise: a verdict (protected, unprotected, unknown) that follows from facts that are shown; a standby
without its process is protection, and counts as such. Reads only.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hitless.cleaning import cleaned
from hitless.errors import HitlessError
from hitless.guard import locking
from hitless.guard.reasons import PROTECTING, Code, GuardState, Reason
from hitless.kernel import files
from hitless.kernel.nftables import read_ruleset
from hitless.kernel.nftables.owned import OwnedTables
from hitless.model.documents import from_json
from hitless.model.families import Family
from hitless.model.standby import CARRIED, LEAKED, TABLE, standby_chains

__all__ = ["GuardStatus", "protects", "read"]

_LATE = 60.0  # seconds; a guard marks the file every ten
_LONGEST = 1 << 20  # bytes of a state file; one has 20 records


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """``facts`` as ``--json`` shows them."""

    verdict: Literal["protected", "unprotected", "unknown"]
    facts: dict[str, Any]

    def text(self) -> str:
        """As a text for users."""
        facts = cleaned(self.facts)
        left = " now; the standby that the last one left protects" if self.verdict == "protected" else ""
        lines = [f"{self.verdict}: " + (f"guard runs (pid {facts['pid']})" if facts["pid"] else f"no guard runs{left}")]
        if facts.get("mode") == "observe":
            lines.append("  it only observes")
            for name, family in facts.get("standing", {}).items():
                lines += [f"  left by an earlier guard: {line.strip()}" for line in _family(name, family)[:1]]
        if facts.get("problem"):
            lines.append(f"  problem: {facts['problem']}")
        if facts.get("journal_problem"):
            lines.append(f"  {facts['records_lost']} records could not be written: {facts['journal_problem']}")
        for name, family in facts["families"].items():
            lines += _family(name, family)
        gaps = [each for each in facts.get("recent", []) if each.get("type") == "gap"]
        if gaps:
            lines.append("last gaps:")
            lines += [_gap(each) for each in gaps[-8:]]
        return "\n".join(lines)


def _family(name: str, family: dict[str, Any]) -> list[str]:
    held = "locked against others" if family.get("protected") else "not locked"
    standby = f" for {', '.join(family['networks'])} ({held})" if family["networks"] else ""
    lines = [f"{name}: {family['state']}{standby}; {family['why']}"]
    if "gaps" in family:
        lines.append(
            f"  gaps {family['gaps']} ({family['gap_ms']} ms, longest {family['longest_gap_ms']} ms, "
            f"{family['uncovered_gaps']} not covered), flows carried {family['carried']}, healed {family['healed']}, "
            f"packets leaked {family['leaked']}, forward gaps {family['forward_gaps']}"
        )
        lines += [f"  left to the primary alone: {text}" for text in family["left_out"]]
        if family.get("gap_since") and family["state"] == GuardState.WITHDRAWN:  # other states name the gap themselves
            at = _at(family["gap_since"])
            lines.append(f"  the primary does not carry pods' new flows since {at}, and no standby does")
        if family["forward_gap_since"]:
            at = _at(family["forward_gap_since"])
            lines.append(f"  forwarding drops pods' new flows since {at}: {family['forward_reason']}")
        if family["doubt"]:
            lines.append(f"  cannot tell whether the primary carries {family['doubt']}")
        if family["forward_doubt"]:
            lines.append(f"  cannot tell whether forwarding lets pods through: {family['forward_doubt']}")
        if family.get("partly"):
            lines.append(f"  partly: {family['partly']}")
    return lines


def _at(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _gap(gap: dict[str, Any]) -> str:
    by = gap.get("opened_by", {}).get("comm") or "unknown"
    length = f"{(gap['end'] - gap['begin']) / 1e6:.0f} ms" + (" and open" if gap.get("open") else "")
    return (
        f"  {_at(gap['begin'])} {gap['family']} {length}, by {by}, "
        f"{'covered' if gap['covered'] else 'NOT covered'}, carried {gap.get('carried', 0)}, "
        f"leaked {gap.get('leaked', 0)}, healed {gap.get('healed', 0)}"
    )


def read(run_dir: Path) -> GuardStatus:
    """The state now."""
    pid = locking.holder(run_dir / "lock")
    written, age = _written(run_dir / "state.json")
    facts = written
    if not pid or facts.get("pid") != pid:  # none, or an earlier guard's that was killed
        facts = {"schema": 1, "pid": pid, "families": _from_kernel()}
        if not pid and written.get("ended"):
            facts["problem"] = f"the guard ended by a failure, its standby works on: {written.get('problem', '')}"
    elif age > _LATE and not facts.get("problem"):
        facts["problem"] = f"the guard's loop has not turned for {age:.0f} s"
    if facts.get("mode") == "observe":  # it has no standby of its own; an earlier guard's may be installed
        facts["standing"] = _from_kernel()
        return GuardStatus("protected" if protects(facts["standing"]) else "unprotected", facts)
    if facts.get("problem"):
        return GuardStatus("unknown", facts)
    return GuardStatus("protected" if protects(facts["families"], "mode" in facts) else "unprotected", facts)


def _written(path: Path) -> tuple[dict[str, Any], float]:
    """What a guard wrote, and how many seconds ago it was there last; nothing when it is not a whole state."""
    try:
        with os.fdopen(files.opened(path), "rb") as file:
            facts = from_json(file.read(_LONGEST))
            age = time.time() - os.fstat(file.fileno()).st_mtime
    except (OSError, ValueError):
        return {}, 0.0
    families = facts.get("families") if isinstance(facts, dict) else None
    if not isinstance(families, dict) or not all(isinstance(each, dict) for each in families.values()):
        return {}, 0.0
    needed = {"state", "why", "networks"}
    return (facts, age) if all(needed <= each.keys() for each in families.values()) else ({}, 0.0)


def protects(families: dict[str, Any], ours: bool = False) -> bool:
    """Whether every pod network is protected. A running guard (``ours``) that withdrew names no networks any more."""
    states = [family["state"] for family in families.values() if family["networks"]]
    if ours and any(family["state"] == GuardState.WITHDRAWN for family in families.values()):
        return False
    return bool(states) and all(state in PROTECTING for state in states)


def _from_kernel() -> dict[str, Any]:
    tables = OwnedTables(TABLE)
    found: dict[str, Any] = {}
    try:
        ruleset = read_ruleset(tables=(TABLE,))
        for table in ruleset.tables:
            family = next(each for each in Family if each.nft == table.family)
            chains, notes = standby_chains(table)
            owner = tables.owner(family)
            counts = tables.counters(family)
            state = GuardState.STANDING_BY if chains else GuardState.WITHDRAWN
            found[family.value] = {
                "state": state.value,
                "code": state.code,
                "why": str(Reason(Code.LEFT_BY_EARLIER_GUARD)),
                "why_code": Code.LEFT_BY_EARLIER_GUARD.value,
                "networks": [network for network, _ in notes],
                "protected": owner is not None and owner.protected,
                "carried": counts[CARRIED].packets if CARRIED in counts else 0,
                "leaked": counts[LEAKED].packets if LEAKED in counts else 0,
            }
    except StopIteration as stop:
        raise HitlessError(f"table {TABLE} is of an unknown family") from stop
    finally:
        tables.close()
    return found
