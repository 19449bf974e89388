"""What is shipped beside the program: alert rules, systemd unit, documentation. Each says what the program does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hitless.cli import guard as command
from hitless.guard import metrics, primaries, records
from hitless.guard.reasons import Code, GuardState

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "deploy/chart/files/alerts.yaml"
UNIT = ROOT / "deploy/systemd/hitless-guard.service"
DOCS = Path(__file__).parents[3] / "docs"
GUIDE = (DOCS / "guard.md").read_text()


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{ROOT / '.venv/bin'}:{os.environ.get('PATH', '')}")
    if found is None:
        words = f"{name} is not installed: apt-get install {package}"
        if os.environ.get("REQUIRE_KERNEL") == "1" and name != "systemd-analyze":
            pytest.fail(words)
        pytest.skip(words)
    return found


def test_the_alerts_are_raised_by_what_they_are_for_and_by_nothing_else(tmp_path: Path) -> None:
    played = tmp_path / "played.yaml"
    played.write_text((Path(__file__).parent / "alerts_played.yaml").read_text().replace("RULES", str(ALERTS)))
    done = subprocess.run(
        [program("promtool", "prometheus"), "test", "rules", str(played)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_are_a_rule_file_as_they_are() -> None:
    done = subprocess.run(
        [program("promtool", "prometheus"), "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/hitless", sys.executable))
    done = subprocess.run(
        [program("systemd-analyze", "systemd"), "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert complaints == [], done.stderr


def test_the_unit_gives_one_right_and_starts_what_there_is() -> None:
    text = UNIT.read_text()
    assert re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.M) == ["CAP_NET_ADMIN"]
    (line,) = re.findall(r"^ExecStart=\S+ guard (.*)$", text, re.M)
    options = command._parser().parse_args(line.split())
    assert (options.profile, options.metrics, options.observe) == ("flannel", None, False)


def test_the_guide_installs_the_program_that_the_unit_starts() -> None:
    (program,) = re.findall(r"^ExecStart=(\S+) guard ", UNIT.read_text(), re.M)
    installed = (DOCS / "install.md").read_text()
    (folder,) = re.findall(rf"^ln -sf (\S+)/bin/hitless {re.escape(program)}$", installed, re.M)
    assert f"{folder}/bin/pip install '.[" in installed
    assert f"python3 -m venv {folder}\n" in installed
    assert "(install.md)" in GUIDE.partition("## Install")[2].partition("\n## ")[0]


def test_the_guide_names_every_metric_profile_record_flag_and_alert_and_no_other_metric() -> None:
    known = set(metrics._HELP)
    missing = {name for name in known if name not in GUIDE}
    assert missing == set()
    assert set(re.findall(r"hitless_guard_[a-z_]+", GUIDE)) <= known
    for name in primaries.names():
        assert f"`{name}`" in GUIDE, name
    for kind in (
        records.Started, records.Followed, records.Withdrawn, records.GuardGap, records.ForwardGap, records.Healed,
        records.LeakSeen, records.GuardNote, records.Partly,
    ):  # fmt: skip
        assert f"| `{kind.__struct_config__.tag}` |" in GUIDE, kind
        for field in kind.__struct_fields__:
            assert field == "t" or f"`{field}`" in GUIDE, f"{kind.__name__}.{field}"
    for code in (*Code, *(state.code for state in GuardState)):
        assert f"`{code}`" in GUIDE, code
    for action in command._parser()._actions:
        long = [flag for flag in action.option_strings if flag.startswith("--")]
        assert not long or long == ["--help"] or long[0] in GUIDE, long


def test_the_alerts_ask_only_for_metrics_that_there_are() -> None:
    assert set(re.findall(r"hitless_guard_[a-z_]+", ALERTS.read_text())) <= set(metrics._HELP)
