"""Maintenance windows of a ConfigMap, and drills of a cluster outside of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.unit.cluster.clusters import cluster, until

from hitless.cli.tools import run_tools
from hitless.testing.api_kubelet import FakeNodes

FILE = """[[window]]
name = "leap"
cron = "0 0 29 2 *"
duration = "1h"
exclude = ["holidays.ics"]
"""
ICS = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20280229\nEND:VEVENT\nEND:VCALENDAR\n"


def objects(fake: FakeNodes) -> set[str]:
    """Every namespace and pod, by its uid."""
    kinds = (*fake.api.store.all("namespaces"), *fake.api.store.all("pods"))
    return {f"{one['metadata']['name']} {one['metadata']['uid']}" for one in kinds}


def play(tmp_path: Path, data: dict[str, str], *words: str) -> tuple[int, set[str]]:
    """The exit code, and what of the cluster's pods and namespaces is new or gone."""

    async def story() -> tuple[int, set[str]]:
        async with cluster() as fake:
            fake.api.store.create("configmaps", "kube-system", {"metadata": {"name": "windows"}, "data": data})
            path = tmp_path / "config"
            path.write_text(fake.api.kubeconfig())
            await until(lambda: len(fake.api.store.all("pods")) == 3)
            before = objects(fake)
            code = await asyncio.to_thread(run_tools, [*words, "--kubeconfig", str(path)])
            return code, before ^ objects(fake)

    return asyncio.run(story())


NEXT = ("window", "next", "--configmap", "kube-system/windows", "--after", "2027-01-01T00:00:00Z", "--json")


def test_a_configmap_is_read_with_the_calendars_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = play(tmp_path, {"windows.toml": FILE, "holidays.ics": ICS}, *NEXT)
    told = json.loads(capsys.readouterr().out)
    assert (code, told) == (0, [{"name": "leap", "begin": "2032-02-29T00:00:00Z", "end": "2032-02-29T01:00:00Z"}])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "ConfigMap kube-system/windows: has no key that ends with .toml"),
        ({"a.toml": FILE, "b.toml": FILE}, "has 2 keys that end with .toml"),
        ({"windows.toml": FILE}, "has no key 'holidays.ics'"),
        ({"windows.toml": "[[window]]"}, "ConfigMap kube-system/windows: windows.toml: window 1: its name is"),
    ],
)
def test_a_configmap_that_is_not_understood_is_refused_by_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: dict[str, str], says: str
) -> None:
    assert play(tmp_path, data, *NEXT)[0] == 3
    assert says in capsys.readouterr().err


def test_one_that_is_not_there_or_has_no_such_name_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, says in (("kube-system/other", "there is no ConfigMap kube-system/other"), ("windows", "NAMESPACE/NAME")):
        assert play(tmp_path, {}, "window", "status", "--configmap", name)[0] == 3
        assert says in capsys.readouterr().err


def test_a_drill_of_a_cluster_outside_of_its_windows_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"windows.toml": FILE, "holidays.ics": ICS}
    words = ("drill", "--cluster", "--yes", "--configmap", "kube-system/windows", "--out", str(tmp_path / "out"))
    code, changed = play(tmp_path, data, *words)
    told = capsys.readouterr().err
    assert (code, changed) == (3, set())
    assert "not now: no maintenance window of ConfigMap kube-system/windows: windows.toml is open for node" in told
    assert "the next opens at 2032-02-29T00:00:00Z" in told
    assert not (tmp_path / "out").exists()


def test_a_drill_on_a_schedule_that_skips_what_is_outside_ends_well_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"windows.toml": FILE, "holidays.ics": ICS}
    words = ("drill", "--cluster", "--yes", "--configmap", "kube-system/windows", "--skip-outside")
    assert play(tmp_path, data, *words) == (0, set())
    assert "hitless: nothing is done: no maintenance window of" in capsys.readouterr().err


def test_a_dry_run_tells_of_the_right_to_read_the_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"windows.toml": FILE, "holidays.ics": ICS}
    words = ("drill", "--cluster", "--dry-run", "--configmap", "kube-system/windows")
    assert play(tmp_path, data, *words) == (0, set())
    told = capsys.readouterr().out
    assert "#   get the ConfigMap kube-system/windows (maintenance windows)" in told
    assert "  resourceNames:\n  - windows\n" in told


def test_a_dry_run_says_that_no_window_is_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"windows.toml": FILE, "holidays.ics": ICS}
    words = ("drill", "--cluster", "--dry-run", "--configmap", "kube-system/windows")
    assert play(tmp_path, data, *words) == (0, set())
    told = " ".join(capsys.readouterr().out.replace("#", " ").split())
    assert "no maintenance window of ConfigMap kube-system/windows: windows.toml is open" in told
