"""The folder that holds the cluster, the programs beside it, and how commands run in its namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "hitless-k8s"
HUB = "10.200.0.254"
"""The control plane's address on the bridge that joins the nodes; pods have no route back from there."""

API = f"https://{HUB}:6443"
PODS = "10.88.0.0/16"


def default() -> Path:
    """``HITLESS_REAL_CLUSTER``, or a folder in the user's cache: binaries and images take about 2 GB."""
    given = os.environ.get("HITLESS_REAL_CLUSTER", "")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given).absolute() if given else cache / "hitless" / "real-cluster"


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"real-cluster: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """End with exit code 3 and what to do."""
    say(text)
    raise SystemExit(3)


@dataclass(frozen=True)
class Folder:
    """Paths inside the cluster's folder."""

    path: Path

    def make(self, *parts: str) -> Path:
        """A folder below it, made if it is not there."""
        found = self.path.joinpath(*parts)
        found.mkdir(parents=True, exist_ok=True)
        return found

    @property
    def bin(self) -> Path:
        return self.make("bin")

    @property
    def pki(self) -> Path:
        return self.make("pki")

    @property
    def images(self) -> Path:
        return self.make("images")

    @property
    def run(self) -> Path:
        return self.make("run")

    @property
    def logs(self) -> Path:
        return self.make("logs")

    @property
    def kubeconfig(self) -> Path:
        return self.pki / "admin.kubeconfig"

    def kubectl(self, *arguments: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl as administrator, inside the control plane's namespace."""
        command = [str(self.bin / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        return run(within(NAMESPACE, command), check=check, text=text)


def within(namespace: str, command: Sequence[str]) -> list[str]:
    """The command, run in a network namespace."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--", *command]


def run(
    command: Sequence[str], *, check: bool = True, text: str | None = None, quiet: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a program; with ``check`` its failure ends with its last lines."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=text)
    if check and done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-5:]
        fail(f"{' '.join(command[:8])} … ended with {done.returncode}:\n  " + "\n  ".join(last))
    return done


def need(programs: dict[str, str]) -> None:
    """End with what to install where a program (name: Debian package) is missing."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    missing = sorted({package for name, package in programs.items() if not shutil.which(name, path=places)})
    if missing:
        fail(f"these are missing: apt-get install {' '.join(missing)}")


def exists(namespace: str) -> bool:
    """Whether the network namespace is there."""
    return Path("/run/netns", namespace).exists()
