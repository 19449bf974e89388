"""The container image, started: what is in it works, and nothing else is in it.

The archive is HITLESS_IMAGE_ARCHIVE, else dist/hitless-image.tar (`make image`); it is unpacked and run with runc.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.image import cgroups

from hitless import __version__

ROOT = Path(__file__).parents[2]
ARCHIVE = Path(os.environ.get("HITLESS_IMAGE_ARCHIVE", ROOT / "dist/hitless-image.tar"))

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def missing(what: str) -> None:
    """Skip, or fail where CI says that nothing may be missing."""
    if os.environ.get("REQUIRE_KERNEL") == "1":
        pytest.fail(what)
    pytest.skip(what)


class Image:
    """An unpacked image for this machine's architecture."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rootfs = folder / "rootfs"
        self.blobs: dict[str, bytes] = {}
        with tarfile.open(ARCHIVE) as packed:
            for member in packed:
                file = packed.extractfile(member)
                assert file is not None
                self.blobs[member.name] = file.read()
        self.index = json.loads(self.blobs["index.json"])
        self.manifests = self._manifests(self.index["manifests"][0])
        here = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        self.manifest, self.config = self.manifests[here]
        layer = gzip.decompress(self.blob(self.manifest["layers"][0]))
        self.diff = hashlib.sha256(layer).hexdigest()
        with tarfile.open(fileobj=io.BytesIO(layer)) as inside:
            self.members = inside.getmembers()
            inside.extractall(self.rootfs, filter="fully_trusted")  # ours, with /tmp for all

    def blob(self, described: dict[str, Any]) -> bytes:
        data = self.blobs[f"blobs/sha256/{described['digest'].removeprefix('sha256:')}"]
        assert hashlib.sha256(data).hexdigest() == described["digest"].removeprefix("sha256:")
        assert len(data) == described["size"]
        return data

    def _manifests(self, top: dict[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        document = json.loads(self.blob(top))
        several = (
            [json.loads(self.blob(one)) for one in document["manifests"]] if "manifests" in document else [document]
        )
        found: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        for manifest in several:
            config = json.loads(self.blob(manifest["config"]))
            found[config["architecture"]] = (manifest, config)
        return found

    def run(
        self, *command: str, stdin: str = "", user: int = 65532, timeout: float = 60, add: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a pod would: no capabilities but ``add``, nothing writable but /tmp, no new privileges."""
        subprocess.run(["runc", "spec"], cwd=self.folder, check=True) if not (
            self.folder / "config.json"
        ).exists() else None
        spec = json.loads((self.folder / "config.json").read_text())
        given = [f"CAP_{one}" for one in add]
        spec["process"] |= {
            "terminal": False,
            "args": list(command),
            "env": self.config["config"]["Env"],
            "user": {"uid": user, "gid": user},
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), given),
        }
        spec["root"]["readonly"] = True
        spec["mounts"].append(
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]}
        )
        bundle = self.folder / f"bundle{len(list(self.folder.iterdir()))}"
        bundle.mkdir()
        spec["root"]["path"] = str(self.rootfs)
        (bundle / "config.json").write_text(json.dumps(spec))
        name = f"hitless-test-{os.getpid()}-{bundle.name}"
        return subprocess.run(
            ["runc", "--root", str(self.folder / "state"), "run", "--bundle", str(bundle), name],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if not ARCHIVE.exists():
        missing(f"there is no image archive at {ARCHIVE}: make image")
    if shutil.which("runc") is None or os.geteuid() != 0:
        missing("runc and root are needed to start the image: apt-get install runc")
    yield Image(tmp_path_factory.mktemp("image"))
    cgroups.remove(f"hitless-test-{os.getpid()}-*")  # runc leaves one where a process had not quite ended


def test_the_archive_is_a_layout_that_names_the_image(image: Image) -> None:
    assert json.loads(image.blobs["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    annotations = image.index["manifests"][0]["annotations"]
    assert annotations["io.containerd.image.name"].endswith(f":{annotations['org.opencontainers.image.ref.name']}")
    assert image.config["rootfs"]["diff_ids"] == [f"sha256:{image.diff}"]


def test_it_starts_as_an_ordinary_user_on_a_read_only_file_system(image: Image) -> None:
    assert image.config["config"]["User"] == "65532:65532"
    done = image.run(*image.config["config"]["Entrypoint"], "--version")
    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout


def test_every_command_of_a_pod_can_be_loaded(image: Image) -> None:
    for words in (["drill"], ["watch"], ["probe"], ["farend"], ["relay", "run"], ["advise"], ["guard"]):
        done = image.run("/usr/bin/hitless", *words, "--help")
        assert done.returncode == 0, (words, done.stderr)


def test_what_the_drill_and_the_guard_import_is_there(image: Image) -> None:
    names = "hitless.cluster.target, hitless.kube.streams, hitless.cluster.rehearsal, ssl, yaml"
    done = image.run("/usr/bin/python3", "-sP", "-c", f"import {names}")
    assert done.returncode == 0, done.stderr


def test_a_relay_runs_a_far_end_in_it_and_keeps_its_words(image: Image) -> None:
    script = (
        "import subprocess, sys, time, pathlib\n"
        "spool = pathlib.Path('/tmp')\n"
        "run = subprocess.Popen(['hitless', 'relay', 'run', '--spool', '/tmp', '--tool', "
        '\'farend=["farend", "--json", "--bind", "127.0.0.1"]\'])\n'
        "while not (spool / 'events').exists() or b'header' not in (spool / 'events').read_bytes(): time.sleep(0.05)\n"
        "subprocess.run(['hitless', 'relay', 'stop', '--spool', '/tmp'], check=True)\n"
        "read = ['hitless', 'relay', 'read', '--spool', '/tmp']\n"
        "out = subprocess.run(read, capture_output=True, check=True).stdout\n"
        "run.terminate(); run.wait(); sys.stdout.write(out.decode())\n"
    )
    done = image.run("/usr/bin/python3", "-sP", "-c", script)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line.split("\t", 1)[1]) for line in done.stdout.splitlines()]
    assert lines[0]["type"] == "header"
    assert lines[-1]["type"] == "summary"


def test_flanneld_is_the_agent(image: Image) -> None:
    done = image.run("/opt/bin/flanneld", "-version")
    assert (done.returncode, done.stdout.strip()) == (0, __version__), done.stderr
    assert "usage: hitless agent" in image.run("/opt/bin/flanneld", "--help").stdout


@pytest.mark.parametrize("command", [("cp", "-f"), ("/opt/bin/install-conf",)])
def test_the_init_containers_of_flannels_manifests_and_charts_find_their_program(
    image: Image, command: tuple[str, ...]
) -> None:
    """They copy the CNI configuration with flannel's image, which is ours then: the whole pod would not start."""
    script = (
        "import pathlib, subprocess\n"
        "source, target = pathlib.Path('/tmp/cni-conf.json'), pathlib.Path('/tmp/net.d/10-flannel.conflist')\n"
        "target.parent.mkdir(); target.write_text('old'); source.write_text('{\"plugins\": []}')\n"
        f"subprocess.run([*{list(command)}, source, target], check=True)\n"
        "assert target.read_text() == source.read_text()\n"
        "assert [one.name for one in target.parent.iterdir()] == [target.name]\n"
        f"done = subprocess.run([*{list(command)}, '/tmp/not-there', target], capture_output=True, text=True)\n"
        "assert done.returncode and '/tmp/not-there' in done.stderr and 'Traceback' not in done.stderr, done\n"
    )
    done = image.run("/usr/bin/python3", "-sP", "-c", script)
    assert done.returncode == 0, done.stderr


def test_the_rule_programs_are_there_and_are_the_nft_ones(image: Image) -> None:
    assert "nf_tables" in image.run("/usr/sbin/iptables", "--version").stdout
    assert "nf_tables" in image.run("/usr/sbin/ip6tables-restore", "--version").stdout
    assert image.run("/usr/sbin/nft", "--version").returncode == 0
    assert image.run("/usr/bin/nsenter", "--version").returncode == 0


def test_a_watch_sees_rules_with_net_admin_alone_and_a_gap_made_by_the_images_own_programs(image: Image) -> None:
    """The capabilities of the drill's watch pod and of the guard; the stand-in is what tests/cluster restarts."""
    script = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGALRM, lambda *_: sys.exit('no change was seen')); signal.alarm(100)\n"
        "stand_in = ['/usr/bin/python3', '-sP', '-m', 'hitless.lab.standins', 'flannel-0.26',\n"
        "  '--network', '10.42.0.0/16', '--subnet', '10.42.1.0/24',\n"
        "  '--subnet-file', '/tmp/subnet.env', '--ready-file', '/tmp/ready']\n"
        "agent = subprocess.Popen(stand_in, stdout=subprocess.DEVNULL)\n"
        "while not os.path.exists('/tmp/ready'): assert agent.poll() is None; time.sleep(0.05)\n"
        "words = ['hitless', 'watch', '--json', '--profile', 'flannel']\n"
        "watch = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)\n"
        "for line in watch.stdout:\n"
        "  print(line, end='')\n"
        """  if '"state":"carried"' in line and agent.poll() is None: agent.terminate(); agent.wait()\n"""
        """  if '"state":"not_carried"' in line: watch.terminate()\n"""
    )
    done = image.run("/usr/bin/python3", "-sP", "-c", script, user=0, timeout=120, add=("NET_ADMIN", "NET_RAW"))
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line]
    states = [one["state"] for one in events if one["type"] == "state"]
    assert (states[0], states[-1]) == ("carried", "not_carried")
    alone = ["hitless", "watch", "--json", "--network", "10.42.0.0/16", "--duration", "1"]
    done = image.run(*alone, user=0, add=("NET_ADMIN",))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()][-1] == "summary"


def test_there_is_no_shell_no_package_manager_and_no_setuid_program(image: Image) -> None:
    programs = {Path(member.name).name for member in image.members if member.mode & 0o111 and not member.isdir()}
    assert "python3.11" in programs
    assert not programs & {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "perl", "curl", "openssl"}
    assert [member.name for member in image.members if member.mode & 0o6000] == []
    assert {member.uid for member in image.members} == {0}


def test_it_is_small(image: Image) -> None:
    assert sum(member.size for member in image.members) < 100_000_000
    assert image.manifest["layers"][0]["size"] < 40_000_000
