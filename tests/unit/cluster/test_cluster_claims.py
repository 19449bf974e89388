"""A pod's stream tells what its tools on its node can know; what else stands in it is refused, and said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.unit.cluster.clusters import play, until

from hitless.cluster.pods import DrillPod
from hitless.errors import HitlessError
from hitless.kube import streams
from hitless.kube.api import Api
from hitless.model import events as e
from hitless.testing.api_kubelet import FakeNodes, Spool

T = 1_790_000_000_000_000_000
DOCUMENT: dict[str, Any] = {
    "metadata": {"name": "pod", "namespace": "default", "labels": {"app.kubernetes.io/component": "watch"}},
    "spec": {
        "nodeName": "node-0",
        "containers": [
            {
                "name": "hitless",
                "image": "i",
                "args": ["--spool", "/spool", "--tool", "watch=[]", "--tool", "control_host=[]"],
            }
        ],
    },
}


def line(stream: str, event: e.Event) -> bytes:
    return stream.encode() + b"\t" + e.encode(event) + b"\n"


def state(**more: Any) -> e.Event:
    return e.RuleState(t=T, family="ipv4", network="10.42.0.0/16", state="carried", **more)


def test_a_pod_that_speaks_for_others_is_not_believed_and_is_named(tmp_path: Path) -> None:
    said: list[tuple[e.Event, str]] = []
    failed: list[str] = []

    async def story(fake: FakeNodes, api: Api) -> None:
        good = [("watch", e.Header(t=T, tool="watch", version="1")), ("watch", state()),
                ("control_host", e.Header(t=T, tool="probe", version="1")),
                ("control_host", e.Summary(t=T, tool="probe")), ("watch", e.Summary(t=T, tool="watch"))]  # fmt: skip
        forged = [
            ("watch", e.Phase(t=T, phase="end")), ("watch", state(node="node-7")), ("watch", state(agent="another")),
            ("relay", e.Restart(t=T, step="ready", round=1)),
            ("control_host", e.Attempts(t=T, interval_ns=1, kind="tcp", family="ipv4", sent=9, ok=9, stream="probe")),
        ]  # fmt: skip
        spool = fake.spools["pod"] = Spool()
        spool.data += b"".join(line(*one) for one in good[:2] + forged + good[2:])
        spool.data += line("farend", e.Note(t=T, level="info", text="from a stream that the pod does not have"))
        spool.done = True
        station = DrillPod(api, DOCUMENT, lambda: T, lambda event, stream: said.append((event, stream)), failed.append)
        await station.start(20.0)
        station._stopping = True
        await until(lambda: station._task is not None and station._task.done())
        taken = [(stream, type(event)) for event, stream in said if stream != "drill"]
        assert taken == [(stream, type(event)) for stream, event in good]

    play(story, tmp_path)
    notes = [event.text for event, _ in said if isinstance(event, e.Note) and event.level == "error"]
    assert len(notes) == 4 and notes[3].startswith("5 lines and events were not taken in all")
    assert "does not know of phase" in notes[0] and "node-7" in notes[1] and "another" in notes[2]
    assert all("pod pod" in text for text in notes)
    assert len(failed) == 1 and "'farend'" in failed[0]


def test_a_line_without_an_end_ends_the_stream_with_a_word_and_costs_no_more_than_its_bound(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        spool = fake.spools["pod"] = Spool()
        spool.data += b"watch\tx" + b"y" * (4 << 20)
        spool.done = True
        fake.api.store.create("pods", "default", DOCUMENT)
        await until(
            lambda: (fake.api.store.get("pods", "default", "pod").get("status") or {}).get("phase") == "Running"
        )
        got: list[bytes] = []
        try:
            async with asyncio.timeout(60):
                await streams.follow(
                    api, "pod", "default", "hitless",
                    lambda at: ["hitless", "relay", "read", "--spool", "/spool", "--from", str(at)], got.append,
                )  # fmt: skip
        except HitlessError as error:
            assert "longer than" in str(error)
        else:
            raise AssertionError("nothing was said")
        assert not got

    play(story, tmp_path)
