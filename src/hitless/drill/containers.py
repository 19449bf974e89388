"""Containers of this machine by crictl or ctr: which of a name run, and how one is stopped as the kubelet stops it.

Problem: ``crictl stop`` kills at once unless it is told otherwise, ``ctr`` knows signals and no grace period, and on
RKE2 and K3s the programs and the runtime's socket lie where neither looks by itself. Promise: a container gets SIGTERM
and its pod's grace period (thirty seconds where nothing says otherwise), then SIGKILL, and ``stop`` returns when it has
ended; what the environment or /etc/crictl.yaml says of the socket holds. Nothing else is asked or changed. Next stage:
``nodes``.
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

_COMMAND = 60.0  # beside the grace period
_PERIOD = 0.05
_GRACE = 30  # a pod's own, where it says nothing
_LONGEST_GRACE = 86_400
_LEAST = 2  # of a pod's 0 the kubelet makes two seconds
_GRACE_ANNOTATION = "io.kubernetes.pod.terminationGracePeriod"
_NAME_LABEL = 'labels."io.kubernetes.container.name"'
_RKE2 = Path("/var/lib/rancher/rke2/bin")
_RKE2_SOCKET = Path("/run/k3s/containerd/containerd.sock")  # K3s' too
_CRICTL_CONFIG = Path("/etc/crictl.yaml")
_ADDRESSES = {"crictl": ("CONTAINER_RUNTIME_ENDPOINT", "CRI_CONFIG_FILE"), "ctr": ("CONTAINERD_ADDRESS",)}
"""The variables by which people tell each program where the runtime is."""


@dataclass(frozen=True, slots=True)
class Containers:
    """The containers of one name; ``grace`` in seconds, None: as their pod says."""

    name: str
    runtime: Literal["crictl", "ctr"] = "crictl"
    grace: int | None = None

    def _program(self) -> str:  # MissingError where neither place has it
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
        told = any(one in os.environ for one in _ADDRESSES[self.runtime])
        if told or not _RKE2_SOCKET.exists() or (self.runtime == "crictl" and _CRICTL_CONFIG.exists()):
            return {}
        return {_ADDRESSES[self.runtime][0]: f"{'unix://' if self.runtime == 'crictl' else ''}{_RKE2_SOCKET}"}

    def _ask(self, *words: str, timeout: float = _COMMAND) -> str:
        place = ("-n", "k8s.io") if self.runtime == "ctr" else ()
        command = [self._program(), *place, *words]
        return processes.run(command, environment=self._environment(), timeout=timeout).stdout

    def running(self) -> set[str]:
        """The ids of those that run."""
        if self.runtime == "crictl":
            return set(self._ask("ps", "--quiet", "--state", "Running", "--name", f"^{self.name}$").split())
        known = set(self._ask("containers", "ls", "-q", f"{_NAME_LABEL}=={self.name}").split())
        tasks = self._ask("tasks", "ls").splitlines()
        return {words[0] for line in tasks if (words := line.split()) and words[-1] == "RUNNING" and words[0] in known}

    def stop(self) -> set[str]:
        """Stop all that run; returns their ids when they have ended."""
        before = self.running()
        for identity in sorted(before):
            if self.runtime == "crictl":
                grace = self._grace(identity) if self.grace is None else self.grace
                self._ask("stop", "--timeout", str(grace), identity, timeout=grace + _COMMAND)
            else:
                self._stop_task(identity, _GRACE if self.grace is None else self.grace)
        return before

    def _grace(self, identity: str) -> int:
        """What the container's pod allows it, as the kubelet wrote it down."""
        told: Any = msgspec.json.decode(self._ask("inspect", "--output", "json", identity))
        try:
            grace = whole_of(told["status"]["annotations"][_GRACE_ANNOTATION])
        except (KeyError, TypeError):
            return _GRACE  # a container that no kubelet made
        return _GRACE if grace is None else max(_LEAST, min(grace, _LONGEST_GRACE))

    def _stop_task(self, identity: str, grace: int) -> None:
        for number, patience in (("SIGTERM", float(grace)), ("SIGKILL", _COMMAND)):
            if number == "SIGTERM" and not grace:
                continue
            try:
                self._ask("tasks", "kill", "--signal", number, identity)
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
