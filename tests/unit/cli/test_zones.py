"""A view says once which zone its times are of."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from hitless.cli.probe_view import ProbeView
from hitless.cli.watch_view import WatchView
from hitless.cli.zones import zone
from hitless.model import events as e

T = 1_700_000_000_000_000_000


@pytest.fixture(params=[("UTC0", "UTC"), ("CET-1", "UTC+01:00"), ("XYZ5:30", "UTC-05:30")])
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name, expected = request.param
    monkeypatch.setenv("TZ", name)
    time.tzset()
    yield expected
    monkeypatch.undo()
    time.tzset()


def test_it_is_this_machines_zone(shown: str) -> None:
    assert zone(T) == shown


def test_watch_and_probe_say_it_at_their_beginning(shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"profile": "canal", "networks": [], "networks_from": "rules", "endpoints": [], "rate": 1}
    WatchView().emit(e.Header(t=T, tool="watch", version="0", config=config))
    ProbeView().emit(e.Header(t=T, tool="probe", version="0", config=config))
    assert capsys.readouterr().out.count(f"times are {shown}\n") == 2
