"""The state that ``hitless guard status`` reads never runs ahead of the journal."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

from tests.unit.guard.around import Node
from tests.unit.guard.flannels import nat
from tests.unit.guard.worlds import World

from hitless.daemon.logs import Log
from hitless.guard import primaries
from hitless.guard.journal import Journal
from hitless.guard.loop import GuardLoop, GuardSettings
from hitless.guard.reporting import Reporter
from hitless.guard.side import Side
from hitless.guard.standby_rules import learn
from hitless.guard.statefile import StandbyHolder
from hitless.kernel.clock import Clock
from hitless.model.families import Family
from hitless.model.rules import Ruleset
from hitless.observe.rules import Observation


def test_who_reads_that_a_gap_is_over_finds_its_record(tmp_path: Path) -> None:
    """One change of legacy rules may end the gaps of both families: IPv6's was told as over before it was written."""
    journal, log = tmp_path / "journal", Log(io.StringIO())
    over: list[set[str]] = []

    class Reading(Reporter):
        def state(self, sides: Mapping[Family, Side], holder: StandbyHolder | None) -> None:
            super().state(sides, holder)
            text = journal.read_text() if journal.exists() else ""
            written = {json.loads(line)["family"] for line in text.splitlines()}
            over.append({family.value for family, side in sides.items() if not side.open})
            assert opened & over[-1] <= written

    reporter = Reading(log, Journal(journal), Clock())
    primary = primaries.load("flannel")
    guard = GuardLoop(GuardSettings(), World().ports(tables=False), reporter, log)
    guard.sides = {f: Side.of(f, primary, (), Node(), learn(nat(f), f, primary)) for f in Family}
    whole = Ruleset(tuple(nat(f).tables[0] for f in Family))
    flushed = Ruleset(tuple(nat(f, chain=()).tables[0] for f in Family))
    opened: set[str] = set()
    guard._observe(Observation(1, 1, whole))
    guard._observe(Observation(2, 2, flushed))
    opened = {family.value for family, side in guard.sides.items() if side.open}
    assert opened == {"ipv4", "ipv6"}
    guard._observe(Observation(3, 3, whole))
    assert over[-1] == opened
