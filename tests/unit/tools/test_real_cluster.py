"""The parts of the real cluster that need no cluster: image archives, processes known by their start time, options."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tools.real_cluster import background, cgroups, checks, images
from tools.real_cluster.__main__ import main
from tools.real_cluster.folder import Folder, fail, need
from tools.real_cluster.node import Node
from tools.real_cluster.running import Row


def test_an_image_archive_holds_its_files_as_root_and_names_its_layer(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "pause").write_text("program")
    images.write_archive(tmp_path / "image.tar", "localhost/x:1", root, ["/pause"])
    with tarfile.open(tmp_path / "image.tar") as packed:
        manifest = json.loads(packed.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
        config = json.loads(packed.extractfile(manifest["Config"]).read())  # type: ignore[union-attr]
        with tarfile.open(fileobj=packed.extractfile(manifest["Layers"][0])) as layer:
            (entry,) = layer.getmembers()
    assert manifest["RepoTags"] == ["localhost/x:1"]
    assert config["config"]["Entrypoint"] == ["/pause"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{manifest['Layers'][0].partition('/')[0]}"]
    assert (entry.name, entry.uid, entry.gname) == ("pause", 0, "root")


def test_a_process_is_stopped_with_its_session_and_a_strangers_number_is_left_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    pid = background.start(folder, "x", ["sh", "-c", "sleep 1000 & wait"])
    assert background.alive(folder, "x") == pid
    background.stop(folder, "x")
    assert background.alive(folder, "x") == 0
    assert not any(f"\nPPid:\t{pid}\n" in _status(one) for one in Path("/proc").glob("[0-9]*/status"))
    (folder.run / "y.pid").write_text(f"{os.getpid()} 1\n")  # the number of another process since a restart
    assert background.alive(folder, "y") == 0
    background.stop(folder, "y")


def _status(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_what_is_missing_is_named_with_its_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        need({"no-such-program-here": "its-package"})
    assert ended.value.code == 3
    assert "apt-get install its-package" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["up", "test", "down", "kubectl", "shell"])
def test_every_word_has_a_help(word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.real_cluster", word, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "--folder" in done.stdout


def test_cgroups_that_go_away_meanwhile_are_passed_over(tmp_path: Path) -> None:
    """Containers end while their processes are counted: ``down`` broke off, and left the rest running."""
    for name in ("a", "b"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "below/cgroup.procs").write_text("7\n")
    found = cgroups._processes(tmp_path)
    assert next(found) == 7
    for name in ("a", "b"):
        shutil.rmtree(tmp_path / name)
    assert list(found) == []
    assert list(cgroups._processes(tmp_path / "a")) == []


@pytest.mark.parametrize("word", ["up", "test"])
def test_a_running_cluster_keeps_its_certificates(
    tmp_path: Path, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were made anew first: nothing could talk to the running API server any more."""
    folder = Folder(tmp_path)
    key = folder.pki / "ca.key"
    key.write_text("the running one's")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", os.environ["PATH"])  # the command adds to it
    monkeypatch.setattr(sys, "argv", ["real_cluster", word, "--folder", str(tmp_path)])
    background.start(folder, "kube-apiserver", ["sleep", "1000"])
    try:
        with pytest.raises(SystemExit) as ended:
            main()
        assert background.alive(folder, "kube-apiserver")
    finally:
        background.stop(folder, "kube-apiserver")
    assert ended.value.code == 3
    told = capsys.readouterr().err
    assert "etcd" in told and "down first" in told
    assert key.read_text() == "the running one's"


def test_a_part_that_breaks_off_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(folder: Folder, nodes: list[Node]) -> Row:
        fail("no kubectl")
        return Row("", held=True)

    def breaks(folder: Folder, nodes: list[Node]) -> Row:
        raise ValueError("no figures")

    def holds(folder: Folder, nodes: list[Node]) -> Row:
        return Row("0 of 100 connections lost", held=True)

    parts = [checks.Part("one", "", ends), checks.Part("two", "", breaks), checks.Part("three", "", holds)]
    monkeypatch.setattr(checks, "PARTS", parts)
    assert checks.run_all(Folder(tmp_path), []) == 1
    table = capsys.readouterr().out
    assert "FAILED" in table and "ValueError: no figures" in table and "broke off (exit 3)" in table
    assert "0 of 100 connections lost" in table
    assert checks.run_all(Folder(tmp_path), [], ["three"]) == 0
