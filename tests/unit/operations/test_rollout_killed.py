"""A rollout whose driver is killed before and after every write: whoever goes on restarts each node exactly once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.operations.rollouts import IMAGE, RESTART, SURGE, Driver, Killed, Mortal, place

from hitless.operations.rollout.values import RolloutChange, verdict


def writes(tmp_path: Path, change: RolloutChange) -> int:
    """How many writes a rollout makes that nobody disturbs."""

    async def story() -> int:
        async with place(tmp_path) as there:
            driver = Driver(there, change)
            state = await driver.run()
            assert (state.phase, verdict(state.turns), dict(there.gone)) == (
                "ended",
                "pass",
                {"node-0": 1, "node-1": 1},
            )
            return driver.mortal.count

    return asyncio.run(story())


async def killed_at(tmp_path: Path, change: RolloutChange, at: int, last: int, *, after: bool) -> None:
    folder = tmp_path / f"{at}{after}"
    folder.mkdir()
    async with asyncio.timeout(240), place(folder) as there:
        first = Driver(there, change, mortal=Mortal(at, after))
        with pytest.raises(Killed):
            await first.run()
        where = f"killed {'after' if after else 'before'} {first.mortal.did[-1]} (write {at})"
        state = there.written if at == last and after else await Driver(there, change).run()
        assert (state.phase, state.driver) == ("ended", ""), where
        assert dict(there.gone) == {"node-0": 1, "node-1": 1}, where
        assert verdict(state.turns) in ("pass", "inconclusive"), where
        assert there.strategy == SURGE, where
        assert "hitless.dev/rollout" not in (there.daemon_set["metadata"].get("annotations") or {}), where
        if change is IMAGE:
            assert set(there.images.values()) == {"flannel:v0.28.9"}, where


@pytest.mark.slow
@pytest.mark.parametrize("change", [IMAGE, RESTART], ids=["image", "restart"])
def test_each_node_is_restarted_once_wherever_the_driver_is_killed(tmp_path: Path, change: RolloutChange) -> None:
    count = writes(tmp_path, change)
    assert count >= 9

    async def everywhere() -> None:
        for at in range(1, count + 1):  # two clusters side by side: a third would wait for the same core
            await asyncio.gather(*(killed_at(tmp_path, change, at, count, after=after) for after in (False, True)))

    asyncio.run(everywhere())
