"""A load balancer that is half up in the middle of a round: other certificates for a while, and the record is whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.contract.cluster.test_cluster_drill import drill, nothing_left, whole
from tests.unit.cluster import roads
from tests.unit.cluster.clusters import cluster, until

from hitless.evidence import read
from hitless.kube.api import Patience, connect
from hitless.model import events as e

AWAY_S = 3.0


def test_a_drill_goes_on_over_certificates_that_would_have_ended_its_first_call(tmp_path: Path) -> None:
    pki = roads.certificates(tmp_path)
    own = roads.server_side(pki)

    async def run() -> None:
        async with (
            asyncio.timeout(240),
            cluster(3, tls=own) as fake,
            roads.proxy(int(fake.api.url.rpartition(":")[2])) as between,
        ):
            server = f"https://{roads.NAME}:443"
            way = {"server": server, "certificate-authority": str(pki / "ca.pem")}
            way["proxy-url"] = f"http://127.0.0.1:{between.port}"
            path = roads.write(tmp_path / "kubeconfig", way, {"token": "t"})
            asked: list[int] = []

            async def half_up() -> None:
                await until(lambda: sum("rke2-canal" in one["metadata"]["name"] for one in fake.pods_made) > 3)
                asked.append(len(between.asked))
                own.load_cert_chain(pki / "stranger.pem", pki / "stranger.key")
                between.cut()
                await asyncio.sleep(AWAY_S)
                asked.append(len(between.asked))
                own.load_cert_chain(pki / "server.pem", pki / "server.key")

            async with connect(path, patience=Patience(total=120.0, first=0.02, longest=0.5)) as api:
                done = await drill(fake, api, tmp_path, meanwhile=half_up)
            assert asked[1] > asked[0], "nobody asked the stranger"
            whole(done)
            (agent,) = done.verdict.agents
            assert agent.rounds == 2
            resumed = [one.text for one in read(tmp_path / "events.jsonl").events if isinstance(one, e.Note)]
            assert any("the connection broke" in one and "read on from byte" in one for one in resumed)
            assert done.told == []
            await until(lambda: nothing_left(fake))

    asyncio.run(run())
