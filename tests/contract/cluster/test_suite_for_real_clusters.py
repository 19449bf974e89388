"""The suite for real clusters, run against the fake: what strangers run must not be wrong by itself."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from hitless import __version__
from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_server import FakeApi

ROOT = Path(__file__).parents[3]
IMAGE = f"ghcr.io/hitless/hitless:{__version__}"
Suite = Callable[..., Coroutine[Any, Any, tuple[int, str]]]
pytestmark = pytest.mark.timeout(300)


def play(story: Callable[[FakeNodes, Suite], Coroutine[Any, Any, None]], folder: Path, *unstartable: str) -> None:
    """A cluster of one control-plane node by hand: no network agent, no pod network in the node, no second node."""

    async def run() -> None:
        async with FakeApi().serve() as api:
            fake = FakeNodes(api, start_delay=0.05, unstartable=set(unstartable))
            fake.add_node("only", version="v1.34.1", labels={"node-role.kubernetes.io/control-plane": ""})
            api.store.change("nodes", "", "only", lambda node: node.__setitem__("spec", {}))
            config = folder / "kubeconfig"
            config.write_text(api.kubeconfig())

            async def suite(*words: str, **environment: str) -> tuple[int, str]:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/cluster", *words,
                    cwd=ROOT,
                    env={**os.environ, "KUBECONFIG": str(config), **environment},
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )  # fmt: skip
                try:
                    out, _ = await process.communicate()
                finally:
                    if process.returncode is None:
                        process.kill()
                        await process.communicate()
                assert process.returncode is not None
                return process.returncode, out.decode()

            try:
                await story(fake, suite)
            finally:
                await fake.close()

    asyncio.run(run())


def left(fake: FakeNodes) -> list[tuple[str, str, str]]:
    return [key for key in fake.api.store.objects if "hitless" in key[1] + key[2]]


def test_it_brings_what_a_cluster_of_one_node_lacks_passes_and_leaves_nothing(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, suite: Suite) -> None:
        store = fake.api.store
        killed = {"metadata": {"name": "hitless-e2e-0-stage"}}  # of a suite that was killed yesterday
        store.create("namespaces", "", killed)
        code, out = await suite("-k", "dry_run or admitted or delete-pod or image")
        assert code == 0, out
        assert "5 passed" in out
        assert left(fake) == []
        made = {one["metadata"]["name"] for one in fake.pods_made}
        assert {"greeting-0", "world"} <= made
        assert any(name.startswith("hitless-e2e-agent") for name in made)

    play(story, tmp_path, "localhost/no-such-image:1")


def test_a_node_without_the_image_is_said_at_once_with_the_command_that_loads_it(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, suite: Suite) -> None:
        loaded = tmp_path / "loaded"
        (tmp_path / "image.tar").write_text("an archive")
        environment = {"HITLESS_ARCHIVE": str(tmp_path / "image.tar"), "HITLESS_LOAD": f"cp -t {loaded}"}
        loaded.mkdir()
        code, out = await suite("-k", "admitted", **environment)
        assert code == 1
        assert (loaded / "image.tar").exists()
        assert f"node only lacks the image {IMAGE}" in out
        assert f"ctr -n k8s.io images import {tmp_path / 'image.tar'}" in out
        assert "ErrImageNeverPull" not in out.partition("the cluster")[0]
        assert left(fake) == []

    play(story, tmp_path, IMAGE)
