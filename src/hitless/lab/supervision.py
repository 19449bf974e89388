"""The process that supervises the agents of a lab that stays up: one supervisor per node, until the lab ends.

The lab's keeper starts it (``hitless lab up --agent``); when the keeper ends, it ends too, with the agents. It reads
from standard input which lab and which agents (``Order``), and writes the state of each node's agent to
/run/hitless/agents.json of the lab, which ``hitless lab status`` reads. It listens nowhere; an agent is restarted by
hand with a signal to its process.
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

__all__ = ["LOG", "Order", "encode", "main", "told"]

_TOLD = "run/hitless/agents.json"
LOG = "/run/hitless-agents.log"
_BACKOFF = 1.0  # a person who kills an agent to see what happens does not want to wait for the kubelet's ten seconds


@dataclass(frozen=True, slots=True)
class Order:
    """Which agent to run: one of the table by ``name``, or a command line; on ``node``, or on all others."""

    name: str = ""
    command: str = ""
    ready: str = "started"
    node: str = ""

    def agent(self) -> Agent:
        """The agent that is meant; raises ``InputError`` when there is none such."""
        return of_command(self.command, Readiness.parse(self.ready)) if self.command else named(self.name)


def encode(orders: Sequence[Order], state: LabState) -> str:
    """For standard input."""
    return json.dumps({"orders": [asdict(one) for one in orders], "state": state.encode()})


def told(keep: KeeperHandle) -> dict[str, dict[str, str | int | bool]]:
    """How each node's agent is, by node; empty when nobody said so."""
    path = Path(f"/proc/{keep.pid}/fd/{keep.root}") / _TOLD
    try:
        found: dict[str, dict[str, str | int | bool]] = json.loads(files.read(path))
    except (OSError, ValueError):
        return {}
    return found


async def _tend(cluster: LabCluster, orders: Sequence[Order]) -> None:
    path = Path("/", _TOLD)
    path.parent.mkdir(parents=True, exist_ok=True)
    supervisors: dict[str, Supervisor] = {}
    last: dict[str, Restart] = {}

    def hear(event: Restart) -> None:
        last[event.node] = event
        words = {
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
        files.replace(path, json.dumps(words).encode(), durable=False)

    def write(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    agents = {one.node: one.agent() for one in orders}
    for node in cluster.nodes:
        agent = agents.get(node.name, agents.get(""))
        if agent is not None:
            supervisors[node.name] = Supervisor(
                node, agent, cluster.plan, emit=hear, clock=Clock(), backoff=_BACKOFF, output=write
            )
    try:
        await asyncio.gather(*(each.start() for each in supervisors.values()))
        await asyncio.Event().wait()
    finally:
        await asyncio.gather(*(each.close() for each in supervisors.values()))


def main() -> int:
    """Run until killed."""
    words = json.loads(sys.stdin.read())
    state = LabState.decode(words["state"], "standard input")
    asyncio.run(_tend(state.cluster(), [Order(**one) for one in words["orders"]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
