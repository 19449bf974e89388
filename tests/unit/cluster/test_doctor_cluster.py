"""``hitless doctor --cluster``: what it says of a cluster, and that it only reads."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.unit.cluster.clusters import cluster, until

from hitless.cli.doctor import command
from hitless.testing.api_kubelet import FakeNodes

GUARD = {
    "metadata": {
        "name": "hitless-guard",
        "namespace": "hitless-system",
        "labels": {"app.kubernetes.io/name": "hitless", "app.kubernetes.io/component": "guard"},
    },
    "spec": {
        "selector": {"matchLabels": {"a": "guard"}},
        "template": {"metadata": {"labels": {"a": "guard"}}, "spec": {}},
    },
    "status": {"desiredNumberScheduled": 2, "numberReady": 1},
}


async def ask(fake: FakeNodes, folder: Path) -> tuple[int, dict[str, Any]]:
    (folder / "kubeconfig").write_text(fake.api.kubeconfig())
    words = ["--cluster", "--kubeconfig", str(folder / "kubeconfig"), "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, command, words, standalone_mode=False)
    assert done.exception is None, done.exception
    told = json.loads(done.output)
    return done.return_value, {**told, **{one["id"]: one for one in told["findings"]}}


def ready(fake: FakeNodes) -> bool:
    (one,) = fake.api.store.all("daemonsets.apps", "kube-system")
    return bool(one.get("status", {}).get("numberReady", 0) == 2)


def test_an_affected_cluster_without_a_guard_is_a_problem_and_nothing_is_written(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(2) as fake:
            await until(lambda: ready(fake))
            code, told = await ask(fake, tmp_path)
            assert code == 1
            assert told["agent"]["state"] == "ok"
            assert "rke2-canal" in told["agent"]["text"]
            assert told["cost"]["state"] == "problem"
            assert told["guard"]["state"] == "note"
            assert told["next"].startswith("hitless drill --cluster")
            assert told["next"].endswith("--dry-run")
            writing = {one.verb for one in fake.api.rights.requests} - {"get", "list", "watch"}
            assert writing <= {"create"}, "a review of one's own rights is not an object that stays"
            assert all(
                "selfsubjectaccessreviews" in str(one) for one in fake.api.rights.requests if one.verb == "create"
            )

    asyncio.run(story())


def test_a_guard_that_is_not_everywhere_is_a_problem(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(2) as fake:
            await until(lambda: ready(fake))
            fake.api.store.create("namespaces", "", {"metadata": {"name": "hitless-system"}})
            fake.api.store.create("daemonsets.apps", "hitless-system", GUARD)
            _, told = await ask(fake, tmp_path)
            assert told["guard"]["state"] == "problem"
            assert "1 of 2 ready" in told["guard"]["text"]

    asyncio.run(story())


@pytest.mark.slow
def test_an_unreachable_server_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n"
        "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
    )
    done = CliRunner().invoke(
        command, ["--cluster", "--kubeconfig", str(tmp_path / "kubeconfig")], standalone_mode=False
    )
    with pytest.raises(Exception, match=r"127\.0\.0\.1:1"):
        assert done.exception is not None
        raise done.exception
