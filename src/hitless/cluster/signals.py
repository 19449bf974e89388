"""SIGKILL for a container's process, by a pod of the drill that sees the node's processes.

Problem: the API cannot kill a process, and the answer to a command in a pod may be lost after it did its work. Promise:
a process that is gone at the second try was killed. Next stages: ``target``, ``hitless.restarts``.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.cluster.manifests import CONTAINER
from hitless.errors import CommandFailed
from hitless.kube import streams
from hitless.kube.api import Api
from hitless.kube.relay_exits import NO_PROCESS
from hitless.restarts.agents import Kill

__all__ = ["killer"]


def killer(api: Api, pods: Mapping[str, tuple[str, str]]) -> Kill:
    """By these pods (name, namespace), one on each node."""

    async def kill(node: str, container: str) -> None:
        command = ["hitless", "relay", "signal", "--container", container, "--signal", "KILL"]
        try:
            await streams.output(api, *pods[node], CONTAINER, command)
        except CommandFailed as error:
            # The signal arrived, its response was lost, and it was sent again; the caller waits for the new container.
            if error.code != NO_PROCESS:
                raise

    return kill
