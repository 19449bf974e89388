"""A kernel whose tables cannot be owned: the standby goes with everything else, and comes back. Said as it was."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tests.kernel.guard.guarded import until, world
from tests.kernel.guard.test_guard_limits import translated
from tests.kernel.guard.test_pools import quick_guard, state

from hitless.guard import running
from hitless.guard.reporting import Reporter
from hitless.guard.standby_table import StandbyTable
from hitless.model.families import Family

pytestmark = pytest.mark.kernel
V4 = Family.IPV4


def quiet(reporter: Reporter) -> None:
    """Wait for a turn of the loop in which nothing is amiss."""
    before = reporter.turned
    until(lambda: reporter.turned > before, "a turn of the loop")


def test_a_gap_in_which_the_standby_went_too_is_bridged_and_not_called_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "StandbyTable", partial(StandbyTable, flags=0))
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        (tmp_path / "saved").write_text(made.on_node("iptables-nft-save", "-t", "nat"))
        with quick_guard(made, V4) as reporter:
            until(lambda: state(reporter, V4) == "standing by", "the standby")
            for damage in ("nft flush ruleset", "iptables-nft -t nat -F FLANNEL-POSTRTG"):
                quiet(reporter)
                made.on_node(*damage.split())
                until(lambda: state(reporter, V4) == "carrying", f"the gap after {damage}")
                until(lambda: made.counters(), "the standby being back")
                assert translated(made)
                made.on_node("iptables-nft-restore", str(tmp_path / "saved"))
                until(lambda: state(reporter, V4) == "standing by", "the gap's end")
        assert [gap["covered"] for gap in made.ended("gap")] == [False, True]
        assert any("took the standby away; it is back" in note["text"] for note in made.records("note"))
