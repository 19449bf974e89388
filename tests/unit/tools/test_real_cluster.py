"""The parts of the real cluster that need no cluster: image archives, processes known by their start time, options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tools.real_cluster import background, images
from tools.real_cluster.folder import Folder, need


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
