"""Where a drill was run: the command, the machine, and whether names are recorded.

Promise: every event passes ``Origin.mask`` before it is written. Next stage: ``running`` writes the header.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hitless.evidence.redaction import Mask, names_of
from hitless.kernel import machine
from hitless.model import events as e

__all__ = ["Origin", "here"]


@dataclass(frozen=True, slots=True)
class Origin:
    """For the header; empty if there was no command line."""

    command: str = ""
    machine: e.Machine | None = None
    anonymous: bool = False

    def mask(self, config: Mapping[str, Any], nodes: Iterable[str]) -> Mask:
        """Removes secrets, and with ``--anonymous`` names, from the record of a drill of these ``nodes``."""
        if not self.anonymous:
            return Mask()
        header = e.Header(
            t=0, tool="drill", version="", config=dict(config), command=self.command, machine=self.machine
        )
        seen = [e.Note(t=0, node=node, level="info", text="") for node in nodes]
        return Mask(names_of([header, *seen]))


def here(command: str, *, anonymous: bool = False) -> Origin:
    """This machine."""
    return Origin(command, machine.whole(), anonymous)
