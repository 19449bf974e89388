from __future__ import annotations

import asyncio
import sys
import textwrap
from pathlib import Path

import pytest
from tests.kernel.lab.worlds import HANG, need, until

from hitless import lab
from hitless.kernel.clock import Clock
from hitless.lab.agents import AGENTS, Agent, Readiness, of_command
from hitless.lab.keeper_client import start_time
from hitless.lab.supervisor import How, Method, Supervisor
from hitless.model.events import Restart

pytestmark = pytest.mark.kernel


class Told(list[Restart]):
    @property
    def steps(self) -> list[str]:
        return [event.step for event in self]


def supervisor(cluster: lab.Lab, agent: Agent, told: Told) -> Supervisor:
    return Supervisor(cluster.nodes[0], agent, cluster.plan, emit=told.append, clock=Clock(), backoff=0.1)


def test_every_way_of_restarting_a_real_agent_ends_ready() -> None:
    async def main() -> Told:
        told = Told()
        async with (
            lab.up_async(lab.LabPlan()) as cluster,
            supervisor(cluster, AGENTS["flannel-0.28"], told) as agent,
        ):
            assert await agent.start()
            for number, method in enumerate(Method, start=1):
                assert await agent.restart(How(method, away=0.2, backoff=0.05), number)
        return told

    need(lab.LabPlan())
    told = asyncio.run(main())
    assert told.steps.count("ready") == 1 + len(Method)
    assert [event.t for event in told] == sorted(event.t for event in told)
    assert {event.round for event in told if event.method == "crash-loop"} == {3}
    assert [event.step for event in told if event.method == "sigkill"] == ["killed", "exited", "started", "ready"]


def written(path: Path, before: int = 0) -> int:
    """The process number in a file, once it is whole and another than ``before``: an agent without a probe counts as
    ready before what it starts has come to writing."""
    found = [before]

    def look() -> bool:
        text = path.read_text() if path.exists() else ""
        found[:] = [int(text) if text.endswith("\n") else before]
        return found != [before]

    until(look, f"a new process number in {path}")
    return found[0]


def test_what_the_agent_started_dies_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    # a daemon: in a session of its own, nobody's child, and not to be known by its environment
    daemon = tmp_path / "daemon.sh"
    daemon.write_text(f"echo $$ > {child}; exec sleep 1000\n")
    command = f"sh -c '(env -i PATH=$PATH setsid sh {daemon} &); sleep 1000'"

    async def main() -> None:
        told = Told()
        async with lab.up_async(lab.LabPlan()) as cluster, supervisor(cluster, of_command(command), told) as agent:
            assert await agent.start()
            pid = await asyncio.to_thread(written, child)
            assert start_time(pid)
            await agent.restart(How(Method.SIGTERM), 1)
            assert not start_time(pid), "the agent's daemon lived through its restart"
            other = await asyncio.to_thread(written, child, pid)
            await agent.kill()
            assert not start_time(other), "the agent's daemon lives on"

    need(lab.LabPlan())
    asyncio.run(main())


SERVER = textwrap.dedent("""
    import http.server, sys, time
    begin = time.monotonic()
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            ready = self.path == "/readyz" and time.monotonic() - begin > 0.3
            self.send_response(200 if ready else 503)
            self.end_headers()
        def log_message(self, *words): pass
    http.server.HTTPServer(("127.0.0.1", 8081), Handler).serve_forever()
""")


def test_readiness_is_asked_by_http_in_the_nodes_own_network(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    command = f"{sys.executable} {tmp_path}/server.py"

    async def main() -> None:
        async with lab.up_async(lab.LabPlan()) as cluster:
            told = Told()
            good = of_command(command, Readiness("http", "http://127.0.0.1:8081/readyz", patience=30))
            async with supervisor(cluster, good, told) as agent:
                assert await agent.start()
            bad = of_command(command, Readiness("http", "http://127.0.0.1:8081/other", patience=1))
            async with supervisor(cluster, bad, told) as agent:
                assert not await agent.start()
            assert told.steps == ["started", "ready", "started", "failed"]
            assert "not ready after 1 s" in told[-1].detail

    need(lab.LabPlan())
    asyncio.run(main())


def test_readiness_is_asked_by_a_command_in_the_node() -> None:
    command = "sh -c 'sleep 0.3; touch /run/there; sleep 1000'"

    async def main() -> None:
        told = Told()
        agent = of_command(command, Readiness.parse("exec:test -e /run/there"))
        async with lab.up_async(lab.LabPlan()) as cluster, supervisor(cluster, agent, told) as running:
            assert await running.start()
            assert (cluster.nodes[0].root / "run/there").exists()

    need(lab.LabPlan())
    asyncio.run(main())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/no/such/program --flag", "No such file or directory"),
        ("no-such-program", "is not installed"),
        ("sh -c 'echo bad config >&2; exit 4'", "ended before it was ready (exit code 4): bad config"),
    ],
)
def test_a_program_that_cannot_be_an_agent_is_reported_with_its_words(command: str, words: str) -> None:
    # without a probe, a program that a busy machine lets live for a tenth of a second would count as ready
    never = Readiness("file", "/run/never", patience=HANG)

    async def main() -> Told:
        told = Told()
        async with (
            lab.up_async(lab.LabPlan()) as cluster,
            supervisor(cluster, of_command(command, never), told) as agent,
        ):
            assert not await agent.start()
        return told

    need(lab.LabPlan())
    told = asyncio.run(main())
    assert told[-1].step == "failed"
    assert words in told[-1].detail
