"""A net-conf.json that changes while the agent runs is noticed, and named once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hitless.agent.overlay.configuration import ConfigurationWatch
from hitless.agent.overlay.source import configuration_reader
from hitless.errors import ApiError
from hitless.sources.options import Options


def test_a_change_and_its_end_are_reported_once() -> None:
    texts = iter(['{"a": 1}', '{"a":1}', None, '{"a": 2}', "{", '{"a": 3}', '{ "a":1 }'])
    told: list[bool] = []

    def read() -> str | None:
        text = next(texts, "over")
        if text == "{":
            raise ApiError("etcd is away")
        return text

    async def story() -> None:
        over = asyncio.Event()

        def tell(differs: bool) -> None:
            told.append(differs)
            if len(told) == 3:
                over.set()

        watch = asyncio.create_task(ConfigurationWatch(read, '{"a": 1}', tell, every=0.0).run())
        await asyncio.wait_for(over.wait(), 60)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)

    asyncio.run(story())
    assert told == [True, False, True]


def test_it_is_read_from_where_a_start_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "net-conf.json"
    path.write_text("{}")
    read = configuration_reader(Options(netconf=str(path), lease_dir=str(tmp_path)))
    assert read is not None and read() == "{}"
    assert configuration_reader(Options(netconf_text="{}", lease_dir=str(tmp_path))) is None
