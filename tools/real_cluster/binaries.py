"""Kubernetes' and flannel's own programs, built from the Go module proxy.

Kubernetes is no library: its own go.mod replaces the modules below ``staging``, so a module that wants its programs
must say their versions. About ten minutes on two cores the first time, seconds from Go's build cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from tools.real_cluster.folder import Folder, fail, run, say

KUBERNETES = "1.34.4"
FLANNEL = "0.27.4"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")

_CLOUD = "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud"
_SERVED = {"vpc": "v1.1.14", "common": "v1.1.15"}
"""A cloud's client that flannel links in, at versions that module proxies serve; its newest ones are too large."""


def kubernetes(folder: Folder, version: str = KUBERNETES) -> None:
    """The six programs in bin/, unless that version is there."""
    stamp = folder.bin / "version"
    if stamp.exists() and stamp.read_text().strip() == version and all((folder.bin / one).exists() for one in PROGRAMS):
        return
    _need_go()
    say(f"building Kubernetes {version} from the Go module proxy (ten minutes the first time)")
    source = folder.make("source", "kubernetes")
    _module(source, "kubernetes")
    found = run(["go", "-C", str(source), "mod", "download", "-json", f"k8s.io/kubernetes@v{version}"]).stdout
    own = (Path(json.loads(found)["Dir"]) / "go.mod").read_text()
    staging = re.findall(r"^\t(k8s\.io/[a-z0-9-]+) => \./staging", own, re.MULTILINE)
    minor = version.partition(".")[2]
    lines = [f"\t{one} => {one} v0.{minor}\n" for one in staging]
    require = f"require k8s.io/kubernetes v{version}\n\nreplace (\n{''.join(lines)})\n"
    _module(source, "kubernetes", require, [f"k8s.io/kubernetes/cmd/{one}" for one in PROGRAMS])
    run(["go", "-C", str(source), "mod", "tidy", "-e"])
    mark = "k8s.io/component-base/version"
    major, short = version.split(".")[:2]
    flags = f"-s -w -X {mark}.gitVersion=v{version} -X {mark}.gitMajor={major} -X {mark}.gitMinor={short}"
    for one in PROGRAMS:
        _build(source, folder.bin / one, f"k8s.io/kubernetes/cmd/{one}", flags, cgo=False)
    stamp.write_text(f"{version}\n")


def flanneld(folder: Folder, version: str = FLANNEL) -> Path:
    """The real flanneld of a version; built with cgo, as flannel's releases are."""
    program = folder.bin / f"flanneld-{version}"
    if program.exists():
        return program
    _need_go()
    say(f"building flanneld {version} from the Go module proxy")
    source = folder.make("source", f"flannel-{version}")
    _module(source, "flanneld", "", ["github.com/flannel-io/flannel"])
    pins = [f"-replace={_CLOUD}/{name}={_CLOUD}/{name}@{served}" for name, served in _SERVED.items()]
    require = f"-require=github.com/flannel-io/flannel@v{version}"
    run(["go", "-C", str(source), "mod", "edit", require, *pins])
    run(["go", "-C", str(source), "mod", "tidy", "-e"])
    flags = f"-s -w -X github.com/flannel-io/flannel/pkg/version.Version=v{version}"
    _build(source, program, "github.com/flannel-io/flannel", flags, cgo=True)
    return program


def _module(source: Path, name: str, more: str = "", imports: list[str] | None = None) -> None:
    (source / "go.mod").write_text(f"module local/{name}\n\ngo 1.24.0\n\n{more}")
    if imports:
        lines = "".join(f'\t_ "{one}"\n' for one in imports)
        (source / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\nimport (\n{lines})\n")


def _build(source: Path, program: Path, package: str, flags: str, *, cgo: bool) -> None:
    """Built beside its place and moved: a build that was interrupted leaves no half program."""
    part = program.with_suffix(".part")
    command = ["nice", "go", "-C", str(source), "build", "-mod=mod", "-o", str(part), "-ldflags", flags, package]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "CGO_ENABLED": str(int(cgo))}
    )
    if done.returncode != 0:
        last = "\n  ".join(done.stderr.strip().splitlines()[-5:])
        fail(f"{package} could not be built:\n  {last}\n  (a program of your own can be put at {program})")
    part.replace(program)
    say(f"built {program.name}")


def _need_go() -> None:
    if shutil.which("go") is None:
        fail("go is missing: install Go 1.24 or later, or put the programs into the folder's bin/")
