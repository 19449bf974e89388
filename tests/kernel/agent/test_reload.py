"""A firewall's reload by single commands succeeds beside the running agent, and pods stay connected."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kernel.agent.nodes import Agent, agent_in, lab_with
from tests.kernel.agent.test_repair import egress, right

from hitless.agent.node import AgentNode
from hitless.kernel import processes
from hitless.lab.building import Lab
from hitless.model.families import Backend

pytestmark = pytest.mark.kernel

EACH_TABLE = """
for t in filter nat mangle; do run -t $t -F; run -t $t -X; done
"""
DELETED_LATER = """
run -P FORWARD DROP
for t in filter nat mangle; do run -t $t -F; done
sleep 0.1
for t in filter nat mangle; do run -t $t -X; done
run -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
run -A FORWARD -p tcp --dport 25 -j REJECT
run -P FORWARD ACCEPT
"""
CHAIN_BY_CHAIN = """
for c in FORWARD FLANNEL-FWD; do run -F $c; sleep 0.05; done
run -X FLANNEL-FWD
for c in POSTROUTING FLANNEL-POSTRTG; do run -t nat -F $c; sleep 0.05; done
run -t nat -X FLANNEL-POSTRTG
"""
RELOADS = {"each table": EACH_TABLE, "deleted later": DELETED_LATER, "chain by chain": CHAIN_BY_CHAIN}
"""What distributions' and people's scripts do; every command must succeed."""


@pytest.fixture(params=[Backend.NFT, Backend.LEGACY], ids=str)
def made(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with lab_with(request.param) as one:
        yield one


RUN = """
run() { now; $p -w "$@" || echo "failed: $p $*" >&2; now; }
now() { read -r up idle < /proc/uptime; echo $up; }
"""


def reload(made: Lab, script: str) -> tuple[str, bool]:
    """What the commands that failed said, and whether the script was as slow as docs/agent.md says may break it."""
    programs_of_both = f"iptables-{made.plan.backend} ip6tables-{made.plan.backend}"
    lines = f"{RUN}\nfor p in {programs_of_both}; do\n{script}\ndone"
    done = processes.run(["sh", "-c", lines], namespace=made.nodes[0].namespace, check=False)
    times = [float(line) for line in done.stdout.splitlines()]
    # of four commands in a row at least one touches what the agent looks at
    stretches = [after - before for before, after in zip(times[::2], times[7::2], strict=False)]
    return done.stderr, max(stretches, default=0.0) > 0.9 or times[-1] - times[0] > 9.0


def whole(agent: Agent, port: AgentNode, made: Lab) -> None:
    agent.wait(lambda: right(port, made) and agent.ready()[0] == 200, "whole rules after the reload")


@pytest.mark.parametrize("name", RELOADS)
def test_every_command_of_a_reload_succeeds_and_the_pods_are_carried_meanwhile(made: Lab, name: str) -> None:
    with AgentNode(made.nodes[0].namespace) as port, agent_in(made) as agent:
        agent.wait(lambda: right(port, made), "the first rules")
        good = 0
        for _ in range(8):  # a machine that stood still in the middle proves nothing
            told = len(agent.said)
            failed, slow = reload(made, RELOADS[name])
            agent.wait(lambda: egress(port, made), "the bridge")
            agent.wait(lambda told=told: agent.events("applied", told), "whole rules when it is quiet")  # type: ignore[misc]
            whole(agent, port, made)
            if slow and (failed or agent.events("not applied", told)):
                continue
            assert failed == ""
            assert "whole tables were flushed" in agent.events("repaired", told)[0]["reason"]
            assert not agent.events("not applied", told)
            good += 1
            if good == 2:
                return
    raise AssertionError("this machine is too slow for a reload by single commands")


@pytest.mark.parametrize("made", [Backend.LEGACY], ids=str, indirect=True)
def test_where_nft_is_not_there_the_rules_are_put_back_at_once(made: Lab) -> None:
    node = made.nodes[0]
    away = "for f in $(command -v -p nft nft | sort -u); do mount --bind /bin/false $f; done"
    processes.run(["sh", "-c", away], namespace=node.namespace)
    with AgentNode(node.namespace) as port, agent_in(made) as agent:
        agent.wait(lambda: right(port, made), "the first rules")
        reload(made, "run -t nat -F")
        whole(agent, port, made)
        agent.wait(lambda: agent.events("reload not bridged"), "word of it")
        told = len(agent.said)
        reload(made, "run -t nat -F")
        whole(agent, port, made)
        assert not agent.events("reload not bridged", told), "it is said once"
