"""The process that supervises the agents of a lab that stays up: one supervisor per node, until the lab ends.

The lab's keeper starts it (``hitless lab up --agent``); when the keeper ends, it ends too, with the agents. It reads
lab and agents (``Order``) from standard input, and writes the state of each node's agent to /run/hitless/agents.json of
the lab, which ``hitless lab status`` reads. It listens on no port; an agent is restarted by a signal to its process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hitless.kernel import files
from hitless.kernel.clock import Clock
from hitless.lab.agents import Agent, Readiness, named, of_command
from hitless.lab.clusters import LabCluster
from hitless.lab.keeper_client import KeeperHandle
from hitless.lab.states import LabState
from hitless.lab.supervisor import Supervisor
from hitless.model.events import Restart

__all__ = ["LOG", "Order", "encode", "main", "read_status"]

_STATUS = "run/hitless/agents.json"
LOG = "/run/hitless-agents.log"
_BACKOFF = 1.0  # instead of the kubelet's ten seconds: for users who kill an agent to see what happens


@dataclass(frozen=True, slots=True)
class Order:
    """Which agent to run: one of the table by ``name``, or a command line; on ``node``, or on all others."""

    name: str = ""
    command: str = ""
    ready: str = "started"
    node: str = ""

    def agent(self) -> Agent:
        """The agent; raises ``InputError`` when there is none of that name."""
        return of_command(self.command, Readiness.parse(self.ready)) if self.command else named(self.name)


def encode(orders: Sequence[Order], state: LabState) -> str:
    """As JSON for standard input."""
    return json.dumps({"orders": [asdict(one) for one in orders], "state": state.encode()})


def read_status(keep: KeeperHandle) -> dict[str, dict[str, str | int | bool]]:
    """The state of each node's agent, by node; empty when there is none yet."""
    path = Path(f"/proc/{keep.pid}/fd/{keep.root}") / _STATUS
    try:
        found: dict[str, dict[str, str | int | bool]] = json.loads(files.read(path))
    except (OSError, ValueError):
        return {}
    return found


async def _supervise(cluster: LabCluster, orders: Sequence[Order]) -> None:
    path = Path("/", _STATUS)
    path.parent.mkdir(parents=True, exist_ok=True)
    supervisors: dict[str, Supervisor] = {}
    last: dict[str, Restart] = {}

    def record(event: Restart) -> None:
        last[event.node] = event
        status = {
            name: {
                "agent": each.agent.name,
                "pid": each.pid,
                "ready": each.ready,
                "restarts": each.restarts,
                "step": last[name].step if name in last else "",
                "detail": last[name].detail if name in last else "",
            }
            for name, each in supervisors.items()
        }
        files.replace(path, json.dumps(status).encode(), durable=False)

    def write(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    agents = {one.node: one.agent() for one in orders}
    for node in cluster.nodes:
        agent = agents.get(node.name, agents.get(""))
        if agent is not None:
            supervisors[node.name] = Supervisor(
                node, agent, cluster.plan, emit=record, clock=Clock(), backoff=_BACKOFF, output=write
            )
    try:
        await asyncio.gather(*(each.start() for each in supervisors.values()))
        await asyncio.Event().wait()
    finally:
        await asyncio.gather(*(each.close() for each in supervisors.values()))


def main() -> int:
    """Run until killed."""
    request = json.loads(sys.stdin.read())
    state = LabState.decode(request["state"], "standard input")
    asyncio.run(_supervise(state.cluster(), [Order(**one) for one in request["orders"]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
