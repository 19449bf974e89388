"""What this machine runs: the release of RKE2 or K3s, and the flannel that is running now.

Problem: the release table says what a release ships; a node may run something else (an image override, an upgrade that
is not finished). Promise: programs are run only to print their version; a flanneld that runs in this
network namespace (others belong to other nodes: containers, a lab) is run with --version in its own mount namespace;
what cannot be found out is left empty, with a note. It changes nothing on the machine.
Next stage: ``advice``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hitless.errors import HitlessError, InputError
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace
from hitless.model.reading import whole_of
from hitless.model.versions import Build, Flannel, Release, find_releases, parse_flannel

__all__ = ["InstalledVersions", "installed_versions"]

_PLACES = ("/usr/local/bin", "/usr/bin", "/opt/rke2/bin", "/var/lib/rancher/rke2/bin")


@dataclass(frozen=True, slots=True)
class InstalledVersions:
    """What was found; ``notes`` say what could not be read."""

    release: Release | Build | None
    flannel: Flannel | None
    flannel_source: str
    notes: tuple[str, ...]


def installed_versions(places: tuple[str, ...] = _PLACES, proc: Path = Path("/proc")) -> InstalledVersions:
    """Read the versions on this machine; raises ``InputError`` when it runs neither RKE2, K3s nor flannel."""
    notes: list[str] = []
    release = _release(places, notes)
    flannel, source = _flannel(proc, notes)
    if release is None and flannel is None:
        raise InputError(
            "neither rke2, k3s nor a running flanneld was found on this machine" + "".join(f"; {one}" for one in notes),
            where="--node",
            expected="a node of a cluster; else give --version or --flannel",
        )
    return InstalledVersions(release, flannel, source, tuple(notes))


def _release(places: tuple[str, ...], notes: list[str]) -> Release | Build | None:
    for product in ("rke2", "k3s"):
        for place in places:
            path = Path(place) / product
            if not path.is_file():
                continue
            try:
                output = processes.run([str(path), "--version"], timeout=20).stdout
            except HitlessError as error:
                notes.append(f"{path} --version: {error}")
                continue
            try:
                return find_releases(output, where=str(path))[0]
            except InputError:
                notes.append(f"{path} --version says {output.strip()[:60]!r}")
    return None


def _flannel(proc: Path, notes: list[str]) -> tuple[Flannel | None, str]:
    try:
        here = (proc / "self/ns/net").stat().st_ino
    except OSError as error:
        notes.append(f"running programs cannot be read: {error.strerror}")
        return None, ""
    for entry in sorted(proc.iterdir()):
        pid = whole_of(entry.name)
        if pid is None:
            continue
        try:
            if (entry / "comm").read_text().strip() != "flanneld":
                continue
            if (entry / "ns/net").stat().st_ino != here:
                continue
            program = (entry / "cmdline").read_bytes().split(b"\0", 1)[0].decode(errors="replace")
        except PermissionError:
            notes.append(f"flanneld runs (process {pid}), and only root may read it")
            continue
        except OSError:
            continue  # it ended meanwhile
        try:
            answer = processes.run(
                [program, "--version"], namespace=Namespace(f"flanneld {pid}", mnt=f"{entry}/ns/mnt"), timeout=20
            )
            output = (answer.stdout + answer.stderr).split()
            if not output:
                raise InputError("says nothing", where=f"{program} --version")
            return parse_flannel(output[-1], where=f"{program} --version"), f"flanneld, process {pid}"
        except HitlessError as error:
            notes.append(f"flanneld runs (process {pid}), but does not show its version: {error}")
    return None, ""
