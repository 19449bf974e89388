"""What a real server says in its worst moments, and what a drill must not believe, wait for or ask."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.unit.cluster.clusters import play, until
from tests.unit.kube.test_answers import server

from hitless.cluster import rehearsal
from hitless.cluster.manifests import PodOptions
from hitless.cluster.pods import sweep
from hitless.cluster.signals import killer
from hitless.cluster.target import placed
from hitless.errors import ApiError, CommandFailed, MissingError
from hitless.kube import access, streams
from hitless.kube.api import Api
from hitless.kube.objects import CONFIG_MAPS, PODS
from hitless.kube.pod_problems import pod_problem
from hitless.restarts import execution
from hitless.restarts.agents import AgentPods, ReportStep
from hitless.restarts.methods import ApiMethod
from hitless.survey.cni import survey_cluster
from hitless.survey.nodes import choose
from hitless.testing.api_kubelet import FakeNodes, Spool
from hitless.testing.api_rights import Rights, rules_of
from hitless.testing.api_store import StatusError

AUTHORITY = Path(__file__).parents[2] / "samples/kubernetes/authority.pem"


def phase(fake: FakeNodes, place: str, name: str) -> str:
    return str((fake.api.store.get("pods", place, name).get("status") or {}).get("phase"))


def test_a_success_that_only_means_that_the_kubelet_went_away_is_not_believed(tmp_path: Path) -> None:
    """kubectl issue 1726: the error stream ends without a word, and the server tells that as Success."""

    async def story(fake: FakeNodes, api: Api) -> None:
        spool = Spool()
        document = {
            "metadata": {"name": "pod"},
            "spec": {"nodeName": "node-0", "containers": [{"name": "c", "image": "i"}]},
        }
        fake.api.store.create("pods", "default", document)
        fake.spools["pod"] = spool
        await until(lambda: phase(fake, "default", "pod") == "Running")
        got: list[bytes] = []

        def reading(offset: int) -> list[str]:
            return ["hitless", "relay", "read", "--spool", "/spool", "--from", str(offset)]

        def add(*lines: bytes) -> None:
            spool.data += b"".join(line + b"\n" for line in lines)
            spool.grown.set()
            spool.grown = asyncio.Event()

        following = asyncio.create_task(streams.follow(api, "pod", "default", "c", reading, got.append))
        add(b"one")
        await until(lambda: got == [b"one"])
        fake.api.faults.drop_kubelets()
        await until(lambda: fake.api.faults.dropped == 1)
        add(b"two")
        await until(lambda: got == [b"one", b"two"])
        spool.done = True
        add(b"three")
        await following
        assert got == [b"one", b"two", b"three"]

    play(story, tmp_path)


def test_creates_whose_answers_were_lost_need_no_right_to_get_what_they_made(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        pods = PodOptions("d1")
        survey = await survey_cluster(api)
        nodes = choose(survey, ["node-1"], None, "")
        fake.api.rights = Rights(rules_of(rehearsal.grants(pods, survey, ApiMethod.DELETE_POD)))
        fake.api.faults.lose(3)  # the namespace, the owner, a pod
        async with placed(api, survey, nodes, pods, own_far_end=True, tell=lambda _: None) as places:
            (owner,) = fake.api.store.all("configmaps", "hitless-drill")
            assert places.owners["hitless-drill"]["metadata"]["uid"] == owner["metadata"]["uid"]
        assert fake.api.faults.lost == 3
        assert fake.api.rights.denied == []

    play(story, tmp_path)


def test_a_server_that_is_too_busy_for_an_eviction_is_asked_again(tmp_path: Path) -> None:
    """Priority and fairness answer 429 as well, in plain text; only a budget's 429 is an answer."""
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        if len(asked) == 1:
            return web.Response(status=429, text="Too many requests, please try again later.\n")
        return web.json_response({"kind": "Status", "status": "Success"}, status=201)

    async def run() -> None:
        async with server(handler, tmp_path) as api:
            await api.evict("x", "kube-system")

    asyncio.run(run())
    assert len(asked) == 2


def test_an_eviction_whose_answer_was_lost_is_not_an_error_when_the_pod_is_gone(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        (pod,) = await api.all(PODS, "kube-system", fields="spec.nodeName=node-1")
        fake.api.faults.lose()
        await api.evict(pod.name, "kube-system", grace=0)
        assert fake.api.faults.lost == 1
        assert pod.name not in {one.name for one in await api.all(PODS, "kube-system")}

    play(story, tmp_path)


@pytest.mark.slow
def test_a_killed_container_that_the_kubelet_holds_back_has_the_kubelets_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)
        agent = AgentPods(api, survey.cni)
        while not (await agent.pods(["node-1"]))["node-1"].ready:  # noqa: ASYNC110 - as a person would ask
            await asyncio.sleep(0.05)
        fake.api.store.create("namespaces", "", {"metadata": {"name": "d"}})
        watch = {
            "metadata": {"name": "w"},
            "spec": {"nodeName": "node-1", "containers": [{"name": "hitless", "image": "i"}]},
        }
        fake.api.store.create("pods", "d", watch)
        await until(lambda: phase(fake, "d", "w") == "Running")
        steps: list[str] = []
        waits: list[float] = []
        real = api.wait_for

        async def wait_for(kind: Any, place: str, done: Callable[[Any], bool], *, within: float, **more: str) -> Any:
            waits.append(within)
            if len(waits) > 1:
                return await real(kind, place, done, within=within, **more)

            def held(pods: Any) -> bool:
                return done(pods) or any(pod_problem(pod).code == "CrashLoopBackOff" for pod in pods.values())

            await real(kind, place, held, within=30.0, **more)
            return None  # the agent's own time is over as soon as the kubelet is seen to hold it back

        monkeypatch.setattr(api, "wait_for", wait_for)
        await execution.restart(
            agent,
            ApiMethod.KILL,
            ["node-1"],
            lambda _, step, *__: steps.append(step),
            patience=0.5,
            kill=killer(api, {"node-1": ("w", "d")}),
        )
        assert steps == ["killed", "started", "ready"]
        assert waits[0] == 0.5 < 300.0 < waits[1], "the kubelet's longest back-off"

    play(story, tmp_path, back_off=2.0)


def test_a_signal_that_was_sent_twice_is_no_error_when_the_process_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first was lost: the second finds no process, and the container is on its way back."""
    real = streams.output

    async def twice(api: Api, pod: str, namespace: str, container: str, command: Sequence[str]) -> bytes:
        await real(api, pod, namespace, container, command)
        raise CommandFailed("hitless relay signal ended with 2", 2)

    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)
        agent = AgentPods(api, survey.cni)
        while not (await agent.pods(["node-1"]))["node-1"].ready:  # noqa: ASYNC110 - as a person would ask
            await asyncio.sleep(0.05)
        killers = {"node-1": ((await agent.pods(["node-1"]))["node-1"].name, "kube-system")}
        monkeypatch.setattr(streams, "output", twice)
        steps: list[str] = []
        tell: ReportStep = lambda _, step, *__: steps.append(step)  # noqa: E731
        await execution.restart(agent, ApiMethod.KILL, ["node-1"], tell, patience=30.0, kill=killer(api, killers))
        assert steps == ["killed", "started", "ready"]

    play(story, tmp_path)


def test_a_letter_that_ends_a_line_in_unicode_does_not_end_a_watchs_line(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        seen: list[set[str]] = []

        async def look() -> None:
            async for state in api.states(CONFIG_MAPS, "default"):
                seen.append({one.name for one in state.values()})
                if "odd" in seen[-1]:
                    return

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            if "watch" not in request.query:
                return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})
            metadata = {"name": "odd", "uid": "1", "resourceVersion": "2", "annotations": {"a": "x\x85y\u2028z"}}
            event = {"type": "ADDED", "object": {"metadata": metadata}}
            return web.Response(body=json.dumps(event, ensure_ascii=False).encode() + b"\n")

        async with asyncio.timeout(90), server(handler, tmp_path) as api:
            await look()
        assert seen[-1] == {"odd"}

    play(story, tmp_path, 1)


def test_a_pod_that_hangs_is_told_with_what_is_known_and_where_to_look(tmp_path: Path) -> None:
    from tests.unit.kube.test_access import _station

    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.store.create("namespaces", "", {"metadata": {"name": "n"}})
        with pytest.raises(MissingError, match=r"not running after 0.2 s .*kubectl get events -n default"):
            await _station(api).start(0.2)

    play(story, tmp_path, start_delay=30.0)


def test_a_pod_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.failing["ours:1"] = "Traceback:\n  a line\nhitless: the spool is full\n"
        survey = await survey_cluster(api)
        pods = PodOptions("0", image="ours:1")
        with pytest.raises(
            MissingError, match="ended with 3 Error Traceback: a line hitless: the spool is full"
        ) as caught:
            async with placed(api, survey, survey.nodes[:1], pods, own_far_end=False, tell=print):
                pass
        assert "of this version" in str(caught.value.remedy)

    play(story, tmp_path)


@pytest.mark.slow
def test_a_namespace_that_never_goes_is_told_with_the_servers_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where metrics-server has no image, no namespace goes: the server cannot list what may be left in it."""
    monkeypatch.setattr("hitless.cluster.target._GONE", 0.3)

    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.store.broken = "metrics.k8s.io/v1beta1"
        fake.api.store.create("namespaces", "", {"metadata": {"name": "hitless-drill"}})
        fake.api.store.remove("namespaces", "", "hitless-drill")
        survey = await survey_cluster(api)
        with pytest.raises(MissingError, match=r"does not go \(Discovery failed .* metrics.k8s.io/v1beta1\)"):
            async with placed(api, survey, survey.nodes[:1], PodOptions("0"), own_far_end=False, tell=print):
                pass

    play(story, tmp_path)


def test_a_clock_that_cannot_be_asked_at_first_is_asked_again(tmp_path: Path) -> None:
    from tests.unit.kube.test_access import _station

    async def story(fake: FakeNodes, api: Api) -> None:
        station = _station(api)
        fake.offsets[station.node] = 9_000_000_000
        refused: list[str] = []
        command = fake.command

        def late(pod: Any, container: str) -> Any:
            if not refused:
                refused.append(container)
                raise StatusError(
                    500, "InternalError", "error dialing backend: dial tcp 192.0.2.1:10250: connection refused"
                )
            return command(pod, container)

        fake.command = late  # type: ignore[method-assign]
        await station.start(10.0)
        await station.dismiss()
        assert refused
        assert station.clock.offset.ns > 8_000_000_000

    play(story, tmp_path)


@pytest.mark.slow
def test_a_namespace_that_is_on_its_way_out_takes_nothing_new_and_goes_when_it_is_empty(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)
        nodes = choose(survey, ["node-1"], None, "")
        async with placed(api, survey, nodes, PodOptions("d1"), own_far_end=False, tell=lambda _: None):
            pass
        with pytest.raises(ApiError, match="because it is being terminated"):
            await api.create(CONFIG_MAPS, {"metadata": {"name": "late"}}, "hitless-drill")
        await until(lambda: ("namespaces", "", "hitless-drill") not in fake.api.store.objects)
        assert await sweep(api, ["hitless-drill"]) == []

    play(story, tmp_path, start_delay=0.2)


def test_kubeconfig_comes_before_the_pods_account_and_may_name_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, words in (("token", "t"), ("namespace", "pods-own"), ("ca.crt", "")):
        (tmp_path / name).write_text(words)
    monkeypatch.setattr("hitless.kube.contexts.ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "pods-own.example")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    where = {"name": "x", "cluster": {"server": "http://one.example:1"}}
    first = {"clusters": [where], "contexts": [], "current-context": "both"}
    there = {"name": "both", "context": {"cluster": "x", "user": "u", "namespace": "ns"}}
    second = {"clusters": [{"name": "x", "cluster": {"server": "http://two.example:2"}}], "contexts": [there]}
    (tmp_path / "one").write_text(json.dumps(first))
    (tmp_path / "two").write_text(json.dumps({**second, "users": [{"name": "u", "user": {"token": "t"}}]}))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'one'}:{tmp_path / 'gone'}:{tmp_path / 'two'}")
    found = access.access(None, None)
    assert (found.server, found.namespace) == ("http://one.example:1", "ns")


def test_a_certificate_is_judged_as_kubectl_judges_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 and later ask for extensions that a cluster's own authority need not have written."""
    made: list[ssl.SSLContext] = []
    real = ssl.create_default_context

    def strict(*words: Any, **options: Any) -> ssl.SSLContext:
        context = real(*words, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        made.append(context)
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    user = {"name": "x", "user": {"token": "t"}}
    config = {
        "clusters": [
            {"name": "x", "cluster": {"server": "https://one.example", "certificate-authority": str(AUTHORITY)}}
        ],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "users": [user],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(json.dumps(config))
    access.access(tmp_path / "config", None)
    assert made
    assert not any(context.verify_flags & ssl.VERIFY_X509_STRICT for context in made)
    assert all(context.verify_mode is ssl.CERT_REQUIRED for context in made)


def test_rights_are_those_of_the_options_one_by_one(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)

        def rights(**options: Any) -> set[str]:
            documents = rehearsal.grants(PodOptions("d1"), survey, ApiMethod.DELETE_POD, **options)
            return {f"{rule.verb} {rule.resource} {rule.namespace}".strip() for rule in rules_of(documents)}

        usual = rights()
        assert rights(turn=True) - usual == {"get configmaps hitless-drill"}
        assert rights(tells=True) - usual == {"create events default"}
        assert usual - rights(makes_namespace=False) == {"create namespaces", "delete namespaces"}

    play(story, tmp_path)
