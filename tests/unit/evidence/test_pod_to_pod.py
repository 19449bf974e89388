"""Connections between pods of different nodes: counted apart from egress, judged by the same rules, in every report."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from tests.unit.evidence.drill_logs import MS, Drill, S, at

from hitless.evidence import AgentVerdict, Verdict, decide, grouped
from hitless.evidence.reports import as_json, html, junit, prometheus, terminal
from hitless.model import events as e


@dataclass
class Two:
    """A healthy drill of one agent on two nodes, whose pods ask each other all the time."""

    silent: tuple[str, ...] = ()  # nodes whose pods ask nobody
    dead: tuple[str, ...] = ()  # nodes whose pod's far end died after 3 s
    extra: list[e.Event] = field(default_factory=list)
    config: dict[str, object] = field(default_factory=dict)

    def log(self) -> list[e.Event]:
        drills = [Drill(node=node) for node in ("node0", "node1")]
        first = drills[0]
        first.config = {"pod_to_pod": True, "nodes": ["node0", "node1"], "overlay": "vxlan", **self.config}
        events: list[e.Event] = [first.header()]
        for drill in drills:
            events += drill.events()
            events += self._pods(drill)
        return [*events, *self.extra, e.Summary(t=at(first.end + 1), tool="drill")]

    def _pods(self, drill: Drill) -> list[e.Event]:
        events: list[e.Event] = []
        for tool, stream in (("farend", "pods_farend"), ("probe", "pods")):
            if tool == "probe" and drill.node in self.silent:
                continue
            here = drill.where(stream)
            dies = tool == "farend" and drill.node in self.dead
            events.append(e.Header(t=at(-0.5), tool=tool, version="0.1.0", **here))
            end = 3 if dies else int(drill.end)
            events += [e.Heartbeat(t=at(n), tool=tool, interval_ns=S, max_lag_ns=MS, **here) for n in range(end + 1)]
            if not dies:
                events.append(e.Summary(t=at(drill.end + 0.1), tool=tool, **here))
        if drill.node not in self.silent:
            events += [
                e.Attempts(
                    t=at(tenth / 10), interval_ns=S // 10, kind="tcp", family="ipv4", sent=50, ok=50,
                    **drill.where("pods"),
                )
                for tenth in range(round(drill.end * 10))
            ]  # fmt: skip
        return events

    def lose(self, t: float, node: str = "node0", *, sport: int = 40000) -> Two:
        """A failed attempt from this node's pod to the other's, that its interval counts."""
        here = {"agent": "flannel-0.28", "node": node, "stream": "pods"}
        self.extra += [
            e.Loss(
                t=at(t), kind="tcp", family="ipv4", src="10.42.0.2", sport=sport, dst="10.42.1.2", dport=7801,
                planned=at(t), end=at(t + 1), cause="timeout", **here,  # type: ignore[arg-type]
            ),
            e.Attempts(t=at(t), interval_ns=S // 10, kind="tcp", family="ipv4", sent=1, ok=0, lost=1, **here),  # type: ignore[arg-type]
        ]  # fmt: skip
        return self


def the(two: Two) -> AgentVerdict:
    (agent,) = decide(two.log()).agents
    return agent


def test_a_clean_drill_lists_egress_and_pod_to_pod_separately() -> None:
    agent = the(Two())
    assert (agent.verdict, agent.nodes) == ("pass", ("node0", "node1"))
    assert (agent.attempted, agent.pod_to_pod.attempted, agent.pod_to_pod.lost) == (18_000, 9000, 0)
    assert "node0: pod to pod: 0 of 4,500 attempts lost" in agent.reasons


def test_a_drill_on_one_node_has_no_pod_to_pod_results() -> None:
    (agent,) = decide(Drill().log()).agents
    assert (agent.pod_to_pod.attempted, agent.pod_to_pod.lost) == (0, 0)
    assert not any("pod to pod" in reason for reason in agent.reasons)


def test_what_only_pods_of_other_nodes_lost_fails_the_drill_and_is_no_loss_of_egress() -> None:
    agent = the(Two().lose(2.3).lose(2.4, sport=40001).lose(4.2, "node1"))
    assert (agent.verdict, agent.lost, agent.pod_to_pod.lost) == ("fail", 0, 3)
    assert "node0: pod to pod: lost 2 of 4,502 attempts (2 no answer)" in agent.reasons
    assert "node1: pod to pod: lost 1 of 4,501 attempts (1 no answer)" in agent.reasons
    assert [(one.node, one.round, one.pod_to_pod.lost) for one in agent.per_round] == [
        ("node0", 1, 2), ("node0", 2, 0), ("node1", 1, 0), ("node1", 2, 1),
    ]  # fmt: skip


def test_losses_between_pods_before_the_first_restart_prove_nothing() -> None:
    agent = the(Two().lose(1.0))
    assert agent.verdict == "inconclusive"
    assert "pod to pod: unhealthy before the first restart: 1 of 1,001 attempts failed" in " ".join(agent.reasons)


def test_where_pods_were_to_ask_and_did_not_nothing_is_proven() -> None:
    agent = the(Two(silent=("node1",)))
    assert agent.verdict == "inconclusive"
    assert any(reason.startswith("node1: pod to pod: no connection was attempted") for reason in agent.reasons)
    bare = [one for one in Two().log() if not one.stream.startswith("pods")]
    assert "pod to pod: no connection was attempted" in " ".join(decide(bare).agents[0].reasons)


def test_a_far_end_in_a_pod_that_died_takes_the_blame_of_the_other_nodes_losses() -> None:
    agent = the(Two(dead=("node1",)).lose(4.2, "node0"))
    assert agent.verdict == "inconclusive"
    told = " ".join(agent.reasons)
    assert "node0: pod to pod: 1 failure without proof (1 the far end was down)" in told
    assert "node1: pod to pod: the record of farend is cut off" in told


def test_a_failure_of_the_node_is_listed_once() -> None:
    two = Two()
    log = [one for one in two.log() if not (isinstance(one, e.Restart) and one.step == "ready" and one.round == 2)]
    (agent,) = decide(log).agents
    assert sum("restarts came to ready again" in reason for reason in agent.reasons) == len(agent.nodes)


def _reported(two: Two) -> tuple[Verdict, dict[str, str]]:
    told = grouped(two.log())
    verdict = decide(two.log())
    forms = {
        "terminal": terminal.text(told, verdict, width=140),
        "html": html.render(told, verdict),
        "junit": junit.render(told, verdict),
        "json": as_json(told, verdict),
        "prometheus": prometheus.render(told, verdict),
    }
    return verdict, forms


def test_every_report_has_both_columns() -> None:
    _, forms = _reported(Two().lose(2.3))
    head = next(line for line in forms["terminal"].splitlines() if line.startswith("agent"))
    assert "egress lost" in head
    assert "pod-to-pod lost" in head
    assert "1 of 9,001" in forms["terminal"]
    assert "pod-to-pod lost" in forms["html"]
    assert "Timeline on node1, pod to pod" in forms["html"]
    assert json.loads(forms["json"])["agents"][0]["pod_to_pod"] == {"attempted": 9001, "lost": 1}
    values = {one.get("name"): one.get("value") for one in ET.fromstring(forms["junit"]).iter("property")}
    assert (values["pod_to_pod_attempted"], values["pod_to_pod_lost"]) == ("9001", "1")
    assert 'hitless_drill_pod_to_pod_lost{agent="flannel-0.28"} 1' in forms["prometheus"]
    assert "pod to pod 1 of 9,001 lost" in json.loads(forms["json"])["cite"]
    assert "1 of 9,001 from pod to pod on other nodes" in forms["terminal"].replace("\n", " ")


def test_the_agents_name_has_the_agents_of_other_nodes() -> None:
    verdict, forms = _reported(Two(config={"agents_on": {"node1": "flanneld"}}))
    assert verdict.agents[0].agent == "flannel-0.28"
    assert verdict.headline == "PASS for flannel-0.28 (stand-in) with flanneld on node1"
    assert "flannel-0.28 (stand-in) with flanneld on node1" in json.loads(forms["json"])["cite"]
