"""A drill in a cluster, end to end against the fake: records, rights, restarts, cut connections, cleanup."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster.clusters import canal, client, cluster, until

from hitless.cli.rollout_findings import under_way
from hitless.cluster import manifests, other_drills, registry, rehearsal, schedule
from hitless.cluster.manifests import PodOptions
from hitless.cluster.pods import sweep
from hitless.cluster.target import Abort, ClusterTarget, placed
from hitless.drill import DrillPlan
from hitless.drill import run as run_drill
from hitless.errors import ApiError, HitlessError, InputError, MissingError
from hitless.evidence import Verdict, read
from hitless.kube.api import Api
from hitless.kube.objects import Pod
from hitless.model import events as e
from hitless.restarts import methods
from hitless.restarts.agents import AgentPods, Kill, ReportStep
from hitless.restarts.methods import ApiMethod
from hitless.survey.cni import Survey, survey_cluster
from hitless.survey.nodes import choose, objections
from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_rights import Rights, rules_of

PLAN = DrillPlan(rounds=2, baseline=1.0, settle=0.1, recovery=3.0, patience=60.0, rate=100, streams=0)


@dataclass
class Drilled:
    fake: FakeNodes
    verdict: Verdict
    events: tuple[e.Event, ...]
    told: list[str]

    @property
    def why(self) -> list[str]:
        """For a failed assertion: what the verdict and the notes say."""
        notes = [f"{one.level}: {one.text}" for one in self.of(e.Note)]
        return [*(reason for agent in self.verdict.agents for reason in agent.reasons), *notes]

    def of(self, kind: type[Any], node: str = "") -> list[Any]:
        return [one for one in self.events if isinstance(one, kind) and node in ("", one.node)]


async def drill(
    fake: FakeNodes,
    api: Api,
    folder: Path,
    *,
    restart: ApiMethod = ApiMethod.DELETE_POD,
    names: Sequence[str] = ("node-1",),
    at_once: int = 1,
    abort: Abort | None = None,
    pods: PodOptions | None = None,
    plan: DrillPlan = PLAN,
    meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None,
    named: str = "",
) -> Drilled:
    survey = await survey_cluster(api, agent=named)
    nodes = choose(survey, names, None, "")
    chosen = pods or PodOptions("d1", networks=("10.42.0.0/16",), see_processes=restart == "kill")
    told: list[str] = []
    log = folder / "events.jsonl"
    async with placed(api, survey, nodes, chosen, own_far_end=True, tell=told.append) as places:
        agent = AgentPods(api, survey.cni)
        target = ClusterTarget(
            api,
            survey,
            nodes,
            chosen,
            plan,
            agent,
            restart,
            places,
            [],
            at_once,
            abort if abort is not None else Abort(),
        )
        other = asyncio.create_task(meanwhile()) if meanwhile else None
        _, verdict = await run_drill(plan, target, log, judged=target.title)
        if other is not None:
            await other
    return Drilled(fake, verdict, read(log).events, told)


def play(
    story: Callable[[FakeNodes, Api], Coroutine[Any, Any, None]], folder: Path, nodes: int = 3, **options: Any
) -> None:
    async def run() -> None:
        async with asyncio.timeout(240), cluster(nodes, **options) as fake, client(fake, folder) as api:
            await story(fake, api)

    asyncio.run(run())


def nothing_left(fake: FakeNodes) -> bool:
    store = fake.api.store
    left = [one for one in store.all("pods") if "hitless" in one["metadata"]["name"]]
    return not left and ("namespaces", "", "hitless-drill") not in store.objects


def whole(done: Drilled) -> None:
    """Every attempt that a probe wrote is in the record."""
    sent = sum(spool.sent for name, spool in done.fake.spools.items() if "-probe-" in name)
    lost = sum(spool.lost for name, spool in done.fake.spools.items() if "-probe-" in name)
    assert sent > 0
    assert sum(one.sent for one in done.of(e.Attempts) if one.stream == "probe") == sent
    assert len([one for one in done.of(e.Loss) if one.stream == "probe"]) == lost


@pytest.mark.parametrize("restart", [ApiMethod.DELETE_POD, ApiMethod.KILL, ApiMethod.EVICT, ApiMethod.ROLLOUT_RESTART])
def test_a_drill_restarts_the_agent_records_all_and_leaves_nothing(tmp_path: Path, restart: ApiMethod) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.offsets["node-1"] = 40_000_000_000  # a node whose clock is 40 s ahead
        done = await drill(fake, api, tmp_path, restart=restart)
        whole(done)
        assert done.verdict.verdict == "fail", done.why
        steps = [one.step for one in done.of(e.Restart, "node-1")]
        assert steps.count("ready") == 2
        kind = "container kube-flannel of pod" if restart == "kill" else "pod "
        seen = [one.evidence for agent in done.verdict.agents for one in agent.per_round]
        assert len(seen) == 2 and all(one.startswith(kind) and "before: " in one for one in seen), seen
        assert "failed" not in steps
        begin, end = (done.of(e.Phase, "node-1")[at].t for at in (0, -1))
        for loss in done.of(e.Loss):
            assert begin <= loss.t <= end, "times must be on the driver's clock"
        assert done.of(e.Gap, "node-1")
        notes = [one.text for one in done.of(e.Note)]
        told = [re.search(r"the clock of node-1 is \+([0-9.]+) ms, known to ([0-9.]+) ms", text) for text in notes]
        clocks = [(float(match[1]), float(match[2])) for match in told if match]
        assert len(clocks) == 2
        assert all(abs(offset - 40_000) <= known + 0.01 for offset, known in clocks)
        streams = {one.stream for one in done.of(e.Header) if one.node}
        assert streams == {"probe", "watch", "farend", "control_host", "control_pods"}
        await until(lambda: nothing_left(fake))
        assert done.told == []

    play(story, tmp_path)


@pytest.mark.parametrize("restart", [ApiMethod.DELETE_POD, ApiMethod.KILL, ApiMethod.EVICT, ApiMethod.ROLLOUT_RESTART])
def test_the_rights_that_a_dry_run_prints_are_exactly_those_that_a_drill_uses(
    tmp_path: Path, restart: ApiMethod
) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        pods = PodOptions("d1", see_processes=restart == "kill")
        survey = await survey_cluster(api)
        documents = rehearsal.grants(pods, survey, restart)
        fake.api.rights = Rights(rules_of(documents))
        # as the command does before it makes anything
        nodes = choose(survey, ["node-1"], None, "")
        mine = other_drills.registration(pods.namespace, survey, nodes, restart, own_far_end=True)
        assert await other_drills.blocking(api, mine, tell=pytest.fail) == ({}, set())
        assert await under_way(api, print) == []
        async with registry.entered(api, "d1", mine, warn=pytest.fail) as others:
            assert others == {}
            done = await drill(fake, api, tmp_path, restart=restart, pods=pods)
        whole(done)
        assert fake.api.rights.denied == []
        assert [str(rule) for rule in fake.api.rights.unused] == []

    play(story, tmp_path, start_delay=0.3)  # slow enough for every watch to be needed


def test_the_objects_that_a_dry_run_prints_are_those_that_a_drill_makes(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        pods = PodOptions("d1")
        survey = await survey_cluster(api)
        nodes = choose(survey, ["node-1"], None, "")
        told = rehearsal.rehearse(pods, survey, nodes, ApiMethod.DELETE_POD, to=(), own_far_end=True, rounds=2)
        await drill(fake, api, tmp_path, pods=pods)
        made = {one["metadata"]["name"]: one for one in fake.pods_made if "hitless" in one["metadata"]["name"]}
        shown = {one["metadata"]["name"]: one for one in told.objects if one["kind"] == "Pod"}
        assert made.keys() == shown.keys()
        for name, pod in shown.items():
            assert len(made[name]["spec"]["containers"]) == 1
            for key in ("securityContext", "nodeName", "volumes", "tolerations"):
                assert made[name]["spec"].get(key) == pod["spec"].get(key)

    play(story, tmp_path)


def test_a_connection_that_is_cut_in_the_middle_of_a_round_costs_no_record(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        async def cut() -> None:
            await until(lambda: any(pod["metadata"]["name"].startswith("rke2-canal") for pod in fake.pods_made[3:]))
            fake.api.faults.cut(2.5)

        done = await drill(fake, api, tmp_path, meanwhile=cut)
        whole(done)
        assert fake.api.faults.cuts == 1
        assert any("the connection broke" in one.text for one in done.of(e.Note))
        assert not [one.text for one in done.of(e.Note) if one.level == "error"]
        assert done.verdict.verdict == "fail", done.why

    play(story, tmp_path)


def test_nodes_one_after_another_share_the_far_end_and_each_has_its_record(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        done = await drill(fake, api, tmp_path, names=("node-1", "node-2"))
        whole(done)
        for node in ("node-1", "node-2"):
            assert [one.step for one in done.of(e.Restart, node)].count("ready") == 2, done.why
            assert {one.stream for one in done.of(e.Summary, node)} >= {"probe", "watch", "farend", "control_host"}
        first, second = (done.of(e.Phase, node) for node in ("node-1", "node-2"))
        assert first[-1].t < second[0].t
        assert not [one.text for one in done.of(e.Note) if one.level == "error"]

    play(story, tmp_path)


def test_twenty_nodes_at_once_are_merged_without_losing_a_record(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        names = [f"node-{number}" for number in range(20)]
        done = await drill(fake, api, tmp_path, names=names, at_once=20)
        whole(done)
        assert {one.node for one in done.of(e.Restart)} == set(names)
        assert {one.node for one in done.of(e.Phase)} == set(names)
        for name in names:
            assert len([one for one in done.of(e.Restart, name) if one.step == "ready"]) == 2

    play(story, tmp_path, nodes=20)


def test_an_agent_that_costs_nothing_passes(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        done = await drill(fake, api, tmp_path)
        whole(done)
        assert done.verdict.verdict == "pass", done.why

    play(story, tmp_path, gap=0.0)


def test_a_restart_that_restarts_nothing_is_inconclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: AgentPods, pods: Mapping[str, Pod], tell: ReportStep, __: Kill) -> None:
        """As with a DaemonSet whose pods are replaced when somebody deletes them (OnDelete)."""
        for node in pods:
            tell(node, "stop", "nothing")

    async def story(fake: FakeNodes, api: Api) -> None:
        monkeypatch.setattr(
            methods, "_ROLLOUT_RESTART", replace(methods.entry_of(ApiMethod.ROLLOUT_RESTART), begin=nothing)
        )
        done = await drill(fake, api, tmp_path, restart=ApiMethod.ROLLOUT_RESTART, plan=replace(PLAN, patience=1.0))
        assert done.verdict.verdict == "inconclusive"
        assert done.why[0].startswith("no sign that an agent restarted on node-1 within 3 s: pod ")
        assert len({one.round for one in done.of(e.Restart)}) == 1, "one such round is enough"

    play(story, tmp_path)


def test_too_many_losses_end_the_drill_before_the_next_restart(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        abort = Abort(losses=5)

        async def started(pod: Any) -> None:
            await until(lambda: bool(abort.reason))  # so that they are known before the next restart

        fake.started = started  # type: ignore[method-assign]
        plan = replace(PLAN, patience=20.0)
        done = await drill(fake, api, tmp_path, abort=abort, names=("node-1", "node-2"), plan=plan)
        assert len([one for one in done.of(e.Restart) if one.step == "stop"]) == 1
        assert any("aborted: " in one.text for one in done.of(e.Note))
        assert done.verdict.verdict == "fail", done.why
        await until(lambda: nothing_left(fake))

    play(story, tmp_path, gap=1.0)


def test_abort_counts_only_the_egress_path_and_its_longest_absence() -> None:
    def state(at: float, state: e.State) -> e.RuleState:
        return e.RuleState(t=int(at * 1e9), family="ipv4", network="n", state=state)

    abort = Abort(seconds=2.0)
    assert not abort.see(state(1.0, "not_carried"), "watch", "a")
    assert not abort.see(state(2.5, "carried"), "watch", "a")
    assert not abort.see(state(3.0, "not_carried"), "watch", "a")
    assert not abort.see(e.Note(t=9_000_000_000, level="info", text=""), "control_host", "a")
    assert abort.see(e.Note(t=5_000_000_001, level="info", text=""), "probe", "a")
    assert "2.0 s without egress" in abort.reason


def test_an_eviction_that_a_budget_forbids_restarts_nothing(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.store.create(
            "poddisruptionbudgets.policy",
            "kube-system",
            {
                "metadata": {"name": "keep"},
                "spec": {"selector": {"matchLabels": {"k8s-app": "canal"}}},
                "status": {"disruptionsAllowed": 0},
            },
        )
        survey = await survey_cluster(api)
        assert any("keep allows no disruption" in one for one in objections(survey, survey.nodes[:1]))
        done = await drill(fake, api, tmp_path, restart=ApiMethod.EVICT)
        assert any("is not allowed now" in one.text for one in done.of(e.Note))
        assert done.verdict.verdict == "inconclusive", done.why

    play(story, tmp_path)


def test_a_pod_that_cannot_start_is_said_in_the_kubelets_words_and_removed(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        pods = PodOptions("d1", image="not/there:1", pull_policy="Never")
        with pytest.raises(MissingError, match="ErrImageNeverPull"):
            await drill(fake, api, tmp_path, pods=pods)
        await until(lambda: nothing_left(fake))

    play(story, tmp_path, unstartable={"not/there:1"})


def test_an_interrupted_drill_removes_what_it_made(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        drilling = asyncio.create_task(drill(fake, api, tmp_path))
        await until(lambda: any("-probe-" in name for name in fake.spools))
        drilling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drilling
        await until(lambda: nothing_left(fake))

    play(story, tmp_path)


def test_cleanup_removes_what_a_dead_driver_left_and_nothing_else(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)
        nodes = choose(survey, ["node-1"], None, "")
        async with asyncio.timeout(90):
            context = placed(api, survey, nodes, PodOptions("dead"), own_far_end=True, tell=lambda _: None)
            await context.__aenter__()  # and the driver dies
        bystander = {
            "metadata": {"name": "bystander"},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]},
        }
        fake.api.store.create("pods", "default", bystander)
        removed = await sweep(api, ["hitless-drill", "no-such-namespace"])
        assert "namespace hitless-drill" in removed
        await until(lambda: nothing_left(fake))
        assert fake.api.store.get("pods", "default", "bystander")
        assert len(fake.api.store.all("pods", "kube-system")) == 3
        assert await sweep(api, ["hitless-drill"]) == []
        await context.__aexit__(None, None, None)  # only so that nothing is left of it in this process

    play(story, tmp_path)


def test_a_namespace_that_the_drill_did_not_make_stays(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.store.create("namespaces", "", {"metadata": {"name": "mine"}})
        await drill(fake, api, tmp_path, pods=PodOptions("d1", namespace="mine"))
        assert fake.api.store.get("namespaces", "", "mine")
        assert fake.api.store.all("configmaps", "mine") == []

    play(story, tmp_path)


def test_everything_made_carries_the_label_and_inside_its_namespace_the_owner(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.store.create("namespaces", "", {"metadata": {"name": "apps"}})
        await drill(fake, api, tmp_path, pods=PodOptions("d1", probe_namespace="apps"))
        made = [one for one in fake.pods_made if "hitless" in one["metadata"]["name"]]
        assert {one["metadata"]["namespace"] for one in made} == {"apps", "hitless-drill"}
        for pod in made:
            assert pod["metadata"]["labels"][manifests.DRILL_LABEL] == "d1"
            assert pod["metadata"]["ownerReferences"][0]["uid"]

    play(story, tmp_path)


def test_unready_nodes_and_agents_are_objections(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.add_node("node-9", ready=False)
        fake.api.store.change(
            "daemonsets.apps", "kube-system", "rke2-canal", lambda one: one["status"].__setitem__("numberReady", 1)
        )
        survey = await survey_cluster(api)
        found = objections(survey, survey.nodes[:1])
        assert any("node-9 is not ready" in one for one in found)
        assert any("1 of 3 pods are ready" in one for one in found)
        with pytest.raises(InputError, match="runs no pod"):
            await AgentPods(api, survey.cni).pods(["node-9"])

    play(story, tmp_path)


def test_workers_are_chosen_before_control_planes_and_by_selector(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)
        assert [node.name for node in choose(survey, (), None, "")] == ["node-1"]
        assert [node.name for node in choose(survey, (), 3, "")] == ["node-1", "node-2", "node-0"]
        assert [node.name for node in choose(survey, (), 1, "kubernetes.io/hostname=node-2")] == ["node-2"]
        for bad in ((["nope"], None, ""), ((), 4, ""), ((), 1, "a!=b")):
            with pytest.raises(InputError):
                choose(survey, *bad)

    play(story, tmp_path)


def _agent(name: str, place: str, containers: list[dict[str, Any]]) -> dict[str, Any]:
    document = canal()
    document["metadata"] |= {"name": name, "namespace": place}
    document["spec"]["template"]["spec"]["containers"] = containers
    return document


@pytest.mark.parametrize(
    ("document", "name", "container"),
    [
        (canal(), "canal", "kube-flannel"),
        (
            _agent(
                "kube-flannel-ds",
                "kube-flannel",
                [{"name": "kube-flannel", "image": "ghcr.io/flannel-io/flannel:v0.28.2"}],
            ),
            "flannel",
            "kube-flannel",
        ),
        (
            _agent(
                "net",
                "kube-system",
                [{"name": "x", "image": "registry/own@sha256:ab", "command": ["/opt/bin/flanneld"]}],
            ),
            "flannel",
            "x",
        ),
        (
            _agent("calico-node", "calico-system", [{"name": "calico-node", "image": "docker.io/calico/node:v3.30.0"}]),
            "calico",
            "calico-node",
        ),
        (
            _agent("cilium", "kube-system", [{"name": "cilium-agent", "image": "quay.io/cilium/cilium:v1.17.0"}]),
            "cilium",
            "cilium-agent",
        ),
    ],
)
def test_the_network_agent_is_found_by_what_it_runs(
    tmp_path: Path, document: dict[str, Any], name: str, container: str
) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        survey: Survey = await survey_cluster(api)
        assert (survey.cni.name, survey.cni.container) == (name, container)
        if name in ("canal", "flannel"):
            assert survey.cni.networks == ("10.42.0.0/16",)

    play(story, tmp_path, nodes=1, agent=document)


def test_k3s_is_found_by_its_kubelets_and_sent_to_the_node_drill(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.store.remove("daemonsets.apps", "kube-system", "rke2-canal")
        with pytest.raises(InputError, match="no network agent"):
            AgentPods(api, (await survey_cluster(api)).cni)
        fake.add_node("k", version="v1.32.5+k3s1")
        survey = await survey_cluster(api)
        assert survey.cni.name == "k3s"
        with pytest.raises(InputError, match="node-drill"):
            AgentPods(api, survey.cni)

    play(story, tmp_path, nodes=1)


def kindnet() -> dict[str, Any]:
    return _agent("kindnet", "kube-system", [{"name": "kindnet-cni", "image": "docker.io/kindest/kindnetd:v20250512"}])


def test_an_agent_that_nobody_knows_is_named_and_judged_by_traffic_alone(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        with pytest.raises(InputError, match="--agent NAMESPACE/DAEMONSET, one of kube-system/kindnet"):
            AgentPods(api, (await survey_cluster(api)).cni)
        with pytest.raises(InputError, match="kube-system/kindnet"):
            await survey_cluster(api, agent="kube-system/kindnetd")
        with pytest.raises(InputError, match="no container 'x'"):
            await survey_cluster(api, agent="kube-system/kindnet/x")
        done = await drill(fake, api, tmp_path, pods=PodOptions("d1", rules=False), named="kube-system/kindnet")
        whole(done)
        assert done.verdict.verdict == "pass", done.why
        assert "traffic alone" in " ".join(done.verdict.agents[0].reasons)
        assert {one.stream for one in done.of(e.Header) if one.node} == {
            *("probe", "farend", "control_host", "control_pods")
        }

    play(story, tmp_path, agent=kindnet(), gap=0.0)


def test_losses_fail_an_agent_that_is_judged_by_traffic_alone(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        done = await drill(fake, api, tmp_path, pods=PodOptions("d1", rules=False), named="kube-system/kindnet")
        whole(done)
        assert done.verdict.verdict == "fail", done.why

    play(story, tmp_path, agent=kindnet())


def test_our_errors_only(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.store.change(
            "configmaps", "kube-system", "rke2-canal-config", lambda one: one["data"].__setitem__("net-conf.json", "{")
        )
        with pytest.raises(InputError, match=r"net-conf\.json"):
            await survey_cluster(api)
        fake.api.rights = Rights([])
        with pytest.raises(ApiError):
            await survey_cluster(api)
        assert issubclass(ApiError, HitlessError)

    play(story, tmp_path, nodes=1)


def test_scheduled_drills_come_to_every_node_in_turn_and_tell_the_cluster(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)
        fake.api.store.create("namespaces", "", {"metadata": {"name": "ns"}})
        seen: list[str] = []
        for _ in range(4):
            last = await schedule.last_turn(api, "ns")
            (node,) = choose(survey, (), None, "", after=last)
            seen.append(node.name)
            await schedule.remember(api, "ns", node.name)
        assert seen == ["node-0", "node-1", "node-2", "node-0"]
        done = await drill(fake, api, tmp_path)
        await schedule.announce(api, done.verdict, ["node-1"], "d1")
        (told,) = fake.api.store.all("events", "default")
        assert (told["reason"], told["type"]) == ("DrillFailed", "Warning")
        assert told["involvedObject"]["name"] == "node-1"
        assert "rke2-canal" in told["message"]

    play(story, tmp_path)


def test_the_rights_of_scheduled_drills_suffice_for_their_turn_and_events(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)
        pods = PodOptions("d1")
        fake.api.store.create("namespaces", "", {"metadata": {"name": pods.namespace}})
        granted = rules_of(rehearsal.grants(pods, survey, ApiMethod.DELETE_POD, turn=True, tells=True))
        fake.api.rights = Rights(granted)
        for node in ("node-0", "node-1"):
            await schedule.remember(api, pods.namespace, node)
        assert await schedule.last_turn(api, pods.namespace) == "node-1"
        verdict = Verdict(verdict="pass", judge="x", agents=())
        await schedule.announce(api, verdict, ["node-1"], "d1")
        assert fake.api.rights.denied == []

    play(story, tmp_path)
