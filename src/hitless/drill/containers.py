"""Containers of this machine, by crictl or ctr: which ones with a name run, and stopping them as the kubelet does.

Problem: ``crictl stop`` kills at once unless it is given a time-out, ``ctr`` has signals and no grace period, and on
RKE2 and K3s the programs and the runtime's socket are in places where neither searches. Promise: a container gets
SIGTERM, its pod's grace period (30 seconds by default), then SIGKILL, and ``stop`` returns when it has ended. The
environment and /etc/crictl.yaml are respected. Nothing else is read or changed. Next stage: ``nodes``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from hitless.errors import MissingError, ProgramError
from hitless.kernel import processes
from hitless.model.reading import whole_of

__all__ = ["Containers"]

_COMMAND = 60.0  # in addition to the grace period
_PERIOD = 0.05
_GRACE = 30  # Kubernetes' default
_LONGEST_GRACE = 86_400
_LEAST = 2  # the kubelet gives 2 seconds to a pod with 0
_GRACE_ANNOTATION = "io.kubernetes.pod.terminationGracePeriod"
_NAME_LABEL = 'labels."io.kubernetes.container.name"'
_RKE2 = Path("/var/lib/rancher/rke2/bin")
_RKE2_SOCKET = Path("/run/k3s/containerd/containerd.sock")  # K3s' too
_CRICTL_CONFIG = Path("/etc/crictl.yaml")
_ADDRESSES = {"crictl": ("CONTAINER_RUNTIME_ENDPOINT", "CRI_CONFIG_FILE"), "ctr": ("CONTAINERD_ADDRESS",)}
"""The environment variables with the runtime's address, for each program."""


@dataclass(frozen=True, slots=True)
class Containers:
    """The containers of one name; ``grace`` in seconds, None: that of their pod."""

    name: str
    runtime: Literal["crictl", "ctr"] = "crictl"
    grace: int | None = None

    def _program(self) -> str:  # MissingError if it is in neither place
        try:
            return processes.program(self.runtime)
        except MissingError:
            if (path := _RKE2 / self.runtime).is_file():
                return str(path)
            other = "ctr" if self.runtime == "crictl" else "crictl"
            raise MissingError(
                f"the program {self.runtime} is not installed, neither in PATH nor in {_RKE2}",
                remedy=f"install it, put its folder into PATH, or choose --runtime {other} or --restart-command",
            ) from None

    def _environment(self) -> Mapping[str, str]:
        given = any(one in os.environ for one in _ADDRESSES[self.runtime])
        if given or not _RKE2_SOCKET.exists() or (self.runtime == "crictl" and _CRICTL_CONFIG.exists()):
            return {}
        return {_ADDRESSES[self.runtime][0]: f"{'unix://' if self.runtime == 'crictl' else ''}{_RKE2_SOCKET}"}

    def _run(self, *arguments: str, timeout: float = _COMMAND) -> str:
        place = ("-n", "k8s.io") if self.runtime == "ctr" else ()
        command = [self._program(), *place, *arguments]
        return processes.run(command, environment=self._environment(), timeout=timeout).stdout

    def running(self) -> set[str]:
        """The ids of the running ones."""
        if self.runtime == "crictl":
            return set(self._run("ps", "--quiet", "--state", "Running", "--name", f"^{self.name}$").split())
        known = set(self._run("containers", "ls", "-q", f"{_NAME_LABEL}=={self.name}").split())
        tasks = self._run("tasks", "ls").splitlines()
        return {row[0] for line in tasks if (row := line.split()) and row[-1] == "RUNNING" and row[0] in known}

    def stop(self) -> set[str]:
        """Stop all running ones, wait until they have ended, and return their ids."""
        before = self.running()
        for identity in sorted(before):
            if self.runtime == "crictl":
                grace = self._grace(identity) if self.grace is None else self.grace
                self._run("stop", "--timeout", str(grace), identity, timeout=grace + _COMMAND)
            else:
                self._stop_task(identity, _GRACE if self.grace is None else self.grace)
        return before

    def _grace(self, identity: str) -> int:
        """The grace period of the container's pod, from the kubelet's annotation."""
        found: Any = msgspec.json.decode(self._run("inspect", "--output", "json", identity))
        try:
            grace = whole_of(found["status"]["annotations"][_GRACE_ANNOTATION])
        except (KeyError, TypeError):
            return _GRACE  # not made by a kubelet
        return _GRACE if grace is None else max(_LEAST, min(grace, _LONGEST_GRACE))

    def _stop_task(self, identity: str, grace: int) -> None:
        for number, patience in (("SIGTERM", float(grace)), ("SIGKILL", _COMMAND)):
            if number == "SIGTERM" and not grace:
                continue
            try:
                self._run("tasks", "kill", "--signal", number, identity)
            except ProgramError:
                if identity in self.running():
                    raise
            end = time.monotonic() + patience
            while identity in self.running():
                if time.monotonic() > end:
                    break
                time.sleep(_PERIOD)
            else:
                return
