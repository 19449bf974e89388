"""Log messages about the guard's state that no record holds: nothing can be copied, what it waits for, what is unknown.

Promise: each is logged once, when it begins or changes; ``--observe`` has the same text as a refusal would have. Next
stage: ``reporting`` calls it with every state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hitless.daemon.logs import Log
from hitless.guard.primaries import Primary
from hitless.guard.side import Side
from hitless.model.families import Family, Network

__all__ = ["Notices", "stays", "unclear"]


def unclear(primary: Primary, family: Family, why: str) -> str:
    """Why there is no exact copy."""
    return f"cannot tell what the primary ({primary.name}) means for {family.value}: {why}"


def stays(networks: Iterable[Network], *, guarding: bool) -> str:
    """What is left when the guard ends."""
    names = ", ".join(map(str, networks))
    if not guarding:
        return "it only observed: nothing was changed"
    if not names:
        return "there is no standby"
    return f"the standby for {names} stays in the kernel and works on; to take it away: hitless guard remove"


class Notices:
    """Remembers what was reported."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._reported: dict[tuple[str, Family | None], str] = {}

    def hear(self, sides: Mapping[Family, Side], *, observing: bool) -> None:
        """Log what is new."""
        for family, side in sides.items():
            why = side.unclear if side.installed is None else ""
            if self._new("unclear", family, why):
                text = unclear(side.primary, family, why)
                event = "the guard would refuse" if observing else "no standby"
                remedy = "; name its chains with --profile" if observing else "; see hitless guard status"
                self._log.warning(event, family=family.value, reason=text + remedy)
            standby = side.installed if observing else None
            networks = ", ".join(map(str, standby.networks)) if standby is not None else ""
            able = f"its rules have an exact copy for {networks}" if networks else ""
            if self._new("able", family, able):
                reason = f"{able}; nothing was written. To protect them: hitless guard"
                self._log.info("the guard could protect this node", family=family.value, reason=reason)
            if self._new("doubt", family, side.doubt):
                reason = f"cannot tell whether the primary carries {side.doubt}"
                self._log.warning("cannot tell", family=family.value, reason=reason)
            if self._new("forward", family, side.forward_doubt):
                reason = f"cannot tell whether forwarding lets {side.forward_doubt} through"
                self._log.warning("cannot tell", family=family.value, reason=reason)
        self._wait(sides)

    def _wait(self, sides: Mapping[Family, Side]) -> None:
        waits = bool(sides) and not any(side.installed or side.unclear or side.withdrawn for side in sides.values())
        waits = waits and not any(side.decider.withdrawn for side in sides.values())
        primary = next(iter(sides.values())).primary if sides else None
        chains = ", ".join(f"{table} {chain}" for table, chain in primary.chains) if primary is not None else ""
        name = primary.name if primary is not None else ""
        text = f"there are no rules of {name} to learn from yet (nothing translates pods' packets in {chains}); "
        text += "the standby comes with them. Another agent: --profile"
        if self._new("waiting", None, text if waits else ""):
            self._log.info("waiting", reason=self._reported["waiting", None])

    def _new(self, kind: str, family: Family | None, text: str) -> bool:
        known = self._reported.get((kind, family), "")
        self._reported[kind, family] = text
        return bool(text) and text != known
