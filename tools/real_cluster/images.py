"""Container images without a registry: archives in the form of ``docker save``, which ``ctr images import`` takes."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

from tools.real_cluster.folder import ROOT, Folder, fail, run, say

from hitless import __version__

PAUSE = "localhost/pause:1"
_PAUSE_SOURCE = r"""
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int number) { exit(0); }
static void reap(int number) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) { signal(SIGINT, end); signal(SIGTERM, end); signal(SIGCHLD, reap); for (;;) pause(); }
"""


def flannel_tag(version: str) -> str:
    """Named as RKE2 names its image, so that it is found as Canal's flannel."""
    return f"docker.io/rancher/hardened-flannel:v{version}-build1"


def agent_tag() -> str:
    """The agent in flannel's place, as tools/build_image.py --flanneld names it."""
    return f"ghcr.io/hitless/hitless-flanneld:{__version__}"


def make(folder: Folder, flanneld: Path, version: str) -> None:
    """The pause image, this checkout's own ones, and flannel's: our programs (iptables) with the real flanneld."""
    own = ROOT / "dist" / "hitless-image.tar"
    if not own.exists():
        fail("dist/hitless-image.tar is not there: make image")
    shutil.copyfile(own, folder.images / own.name)
    agent = ROOT / "dist" / "hitless-flanneld.tar"
    (folder.images / agent.name).unlink(missing_ok=True)
    if agent.exists():
        shutil.copyfile(agent, folder.images / agent.name)
    if not (folder.images / "pause.tar").exists():
        with tempfile.TemporaryDirectory() as temporary:
            program = Path(temporary) / "pause"
            run(["cc", "-static", "-Os", "-x", "c", "-o", str(program), "-"], text=_PAUSE_SOURCE)
            write_archive(folder.images / "pause.tar", PAUSE, Path(temporary), ["/pause"])
    target = folder.images / "flannel.tar"
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        _unpack(own, root)
        program = root / "opt" / "bin" / "flanneld"
        program.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(flanneld, program)
        write_archive(target, flannel_tag(version), root, ["/opt/bin/flanneld"])
    say(f"images: {', '.join(sorted(one.name for one in folder.images.glob('*.tar')))}")


def _unpack(archive: Path, root: Path) -> None:
    """The files of the first image of an OCI archive."""
    with tarfile.open(archive) as packed:

        def blob(digest: str) -> bytes:
            found = packed.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert found is not None, digest
            return found.read()

        index = packed.extractfile("index.json")
        assert index is not None, "an OCI archive has an index"
        manifest = json.loads(blob(json.loads(index.read())["manifests"][0]["digest"]))
        while "manifests" in manifest:
            manifest = json.loads(blob(manifest["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"]))) as files:
                files.extractall(root, filter="tar")


def write_archive(target: Path, name: str, root: Path, entrypoint: list[str]) -> None:
    """An archive of one layer with what is in ``root``, owned by root."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as packed:
        for one in sorted(root.iterdir()):
            packed.add(one, arcname=one.name, filter=_as_root)
    data = layer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": entrypoint, "Env": [path], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created_by": "tools/real_cluster"}],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{digest}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]).encode()
    part = target.with_suffix(".part")
    with tarfile.open(part, "w") as packed:
        for inside, content in ((config_name, config), (layer_name, data), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(inside)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    part.replace(target)


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
