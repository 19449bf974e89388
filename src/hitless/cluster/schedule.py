"""Drills on a schedule: the next node, and the Events and metrics about its result.

Problem: a CronJob drills one node a run, must come to every node in turn, and its results must be seen where operators
read. Promise: the last node drilled is in one small ConfigMap, the next is the one after it by name (so that nodes may
come and go); every drilled node gets one Kubernetes Event with the verdict and its first reasons; the same result is in
the log of the job, and in its exit code. Next stage: ``hitless.cli``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from urllib.parse import quote

from hitless.cleaning import clean
from hitless.cluster.manifests import MANAGED, Document
from hitless.errors import ApiError
from hitless.evidence import Verdict
from hitless.kube.access import httpx2
from hitless.kube.api import Api
from hitless.kube.objects import CONFIG_MAPS, EVENTS

__all__ = ["TURN", "announce", "event", "last_turn", "push", "remember"]

TURN = "hitless-drill-turn"
_LONGEST = 1024  # what the API takes as an Event's message


async def last_turn(api: Api, namespace: str) -> str:
    """The node that was drilled last; empty at first."""
    try:
        return ((await api.get(CONFIG_MAPS, TURN, namespace)).data or {}).get("last", "")
    except ApiError as error:
        if error.status == 404:
            return ""
        raise


async def remember(api: Api, namespace: str, node: str) -> None:
    """Write down that this node had its turn."""
    try:
        await api.patch(CONFIG_MAPS, TURN, namespace, {"data": {"last": node}}, "application/merge-patch+json")
    except ApiError as error:
        if error.status != 404:
            raise
        # No label of a drill: it belongs to the schedule and outlives every one of them.
        labels = {"app.kubernetes.io/managed-by": MANAGED["app.kubernetes.io/managed-by"]}
        metadata = {"name": TURN, "namespace": namespace, "labels": labels}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"last": node}}
        await api.create(CONFIG_MAPS, document, namespace)


def event(verdict: Verdict, node: str, identity: str, now: dt.datetime) -> Document:
    """The Event about a node. Events about nodes live in the namespace ``default``."""
    agent = next((one for one in verdict.agents if one.agent in verdict.judged), None)
    reasons = "; ".join(agent.reasons) if agent is not None else "nothing was measured"
    reason = {"pass": "DrillPassed", "fail": "DrillFailed"}.get(verdict.verdict, "DrillInconclusive")
    time = now.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"hitless-{identity}-{node}"[:253].rstrip("-."), "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "reason": reason,
        "message": clean(f"restart of {verdict.judge}: {reasons}", _LONGEST),
        "type": "Normal" if verdict.verdict == "pass" else "Warning",
        "source": {"component": "hitless-drill", "host": node},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


async def announce(api: Api, verdict: Verdict, nodes: Sequence[str], identity: str) -> None:
    """Post the Events."""
    now = dt.datetime.now(dt.UTC)
    for node in nodes:
        await api.create(EVENTS, event(verdict, node, identity, now), "default")


async def push(url: str, text: str, job: str, label: str, value: str) -> None:
    """Replace the metrics of one group of a Pushgateway: of this job, with this label. ``text``: Prometheus' format."""
    path = f"{url.rstrip('/')}/metrics/job/{job}/{label}/{quote(value, safe='')}"
    try:
        async with httpx2.AsyncClient(timeout=15.0) as client:
            answer = await client.put(
                path, content=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4"}
            )
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise ApiError(f"PUT {path}: {str(error) or type(error).__name__}") from error
    if not answer.is_success:
        raise ApiError(f"PUT {path}: {answer.status_code} {answer.text[:200].strip()}", status=answer.status_code)
