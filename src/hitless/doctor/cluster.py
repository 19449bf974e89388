"""A cluster's diagnosis: connection, nodes, network agent and what its restart costs, guard, rights for a drill.

Promise: it lists nodes, DaemonSets and ConfigMaps and asks the server what this user may do (SelfSubjectAccessReview,
which stores nothing); nothing is made or changed. Ten seconds at most for each question.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

from hitless import __version__
from hitless.advice import clusters, releases
from hitless.advice.remedies import Status
from hitless.doctor.findings import Diagnosis, DoctorFinding, State
from hitless.errors import ApiError
from hitless.kube.api import Api, Patience, connect
from hitless.kube.contexts import read
from hitless.kube.objects import DAEMON_SETS, DaemonSet
from hitless.survey.cni import Survey, survey_cluster

__all__ = ["diagnose_cluster"]

_PATIENCE = 10.0
_OF_STATUS: Mapping[Status, State] = {"affected": "problem", "window": "note", "unknown": "unknown"}
_CLOCK_APART = 5.0  # seconds; HTTP's Date has whole ones
_GUARD_LABEL = ("app.kubernetes.io/component", "guard")
_NEEDED = (("create", "", "pods"), ("create", "", "pods/exec"), ("delete", "", "pods"), ("list", "", "nodes"))
"""What a drill cannot do without; ``drill --cluster --dry-run`` prints every right."""


def diagnose_cluster(kubeconfig: Path | None, context: str | None) -> Diagnosis:
    """Everything about the cluster of a kubeconfig's context; raises ``ApiError`` when it is unreachable."""
    connection = read(kubeconfig, context)
    findings = asyncio.run(_findings(kubeconfig, connection.context))
    findings += _costs(kubeconfig, connection.context)
    subject = f"cluster of context {connection.context or '(this pod)'} at {connection.cluster.server}"
    return Diagnosis.of(subject, findings, _next({one.id: one for one in findings}, connection.context), __version__)


async def _findings(kubeconfig: Path | None, context: str | None) -> list[DoctorFinding]:
    async with connect(kubeconfig, context, patience=Patience(total=_PATIENCE)) as api:
        begun = time.monotonic()
        survey = await survey_cluster(api, with_budgets=False)
        found = [_server(api, time.monotonic() - begun), _nodes(survey), _agent(survey)]
        found += [_guard(await api.all(DAEMON_SETS)), await _clock(api), await _rights(api)]
        return found


def _server(api: Api, took: float) -> DoctorFinding:
    text = f"{api.server} answers ({took * 1000:.0f} ms for all nodes and DaemonSets)"
    return DoctorFinding("server", "API server", "ok", text)


def _nodes(survey: Survey) -> DoctorFinding:
    away = [node.name for node in survey.nodes if not node.ready]
    text = f"{len(survey.nodes)} nodes"
    if away:
        shown = ", ".join(away[:5]) + (" …" if len(away) > 5 else "")
        return DoctorFinding(
            "nodes", "nodes", "note", f"{text}, {len(away)} not ready ({shown}): a drill refuses until they are"
        )
    return DoctorFinding("nodes", "nodes", "ok", f"{text}, all ready")


def _agent(survey: Survey) -> DoctorFinding:
    title, cni = "network agent", survey.cni
    if cni.name == "none":
        there = ", ".join(cni.others[:8]) or "there are none"
        text = f"none that is known among the DaemonSets: {there}"
        return DoctorFinding(
            "agent", title, "unknown", text, "hitless drill --cluster --agent NAMESPACE/DAEMONSET", essential=True
        )
    if cni.daemon_set is None:
        return DoctorFinding("agent", title, "ok", "flannel inside the k3s process: drill it on a node")
    status = cni.daemon_set.status
    name = f"{cni.namespace}/{cni.title}"
    if status.number_ready < status.desired_number_scheduled:
        text = f"{name}: {status.number_ready} of {status.desired_number_scheduled} pods are ready"
        return DoctorFinding("agent", title, "problem", text, f"kubectl -n {cni.namespace} get pods -o wide")
    how = "" if cni.known else "; its rules are not known here, so a drill judges by traffic alone"
    return DoctorFinding("agent", title, "ok", f"{name} on {status.number_ready} nodes{how}")


def _guard(sets: Sequence[DaemonSet]) -> DoctorFinding:
    key, value = _GUARD_LABEL
    guards = [one for one in sets if one.label(key) == value and "hitless" in one.label("app.kubernetes.io/name")]
    if not guards:
        command = "helm upgrade --install hitless deploy/chart --namespace hitless-system --create-namespace"
        return DoctorFinding("guard", "guard", "note", "not installed: a restart is not bridged", command)
    one = guards[0]
    text = (
        f"{one.metadata.namespace}/{one.name}: {one.status.number_ready} of {one.status.desired_number_scheduled} ready"
    )
    whole = one.status.number_ready >= one.status.desired_number_scheduled
    command = "" if whole else f"kubectl -n {one.metadata.namespace} get pods -o wide"
    return DoctorFinding("guard", "guard", "ok" if whole else "problem", text, command)


async def _clock(api: Api) -> DoctorFinding:
    answer = await api.client.get("/version", timeout=_PATIENCE)
    try:
        server = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return DoctorFinding("clock", "clocks", "unknown", "the server does not say what time it has")
    apart = time.time() - server
    if abs(apart) > _CLOCK_APART:
        text = f"this machine's clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the server's"
        return DoctorFinding("clock", "clocks", "note", f"{text}; a drill measures each node's clock and corrects it")
    return DoctorFinding("clock", "clocks", "ok", "this machine and the server agree")


async def _rights(api: Api) -> DoctorFinding:
    missing: list[str] = []
    for verb, group, resource in _NEEDED:
        name, _, sub = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": name, "subresource": sub, "namespace": "hitless-drill"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}},
        }
        answer = await api.client.post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=review, timeout=_PATIENCE
        )
        if answer.status_code >= 400:
            return DoctorFinding(
                "rights", "rights", "unknown", f"the server does not say what you may do ({answer.status_code})"
            )
        if not answer.json().get("status", {}).get("allowed"):
            missing.append(f"{verb} {resource}")
    if missing:
        text = f"for a drill you lack: {', '.join(missing)} in namespace hitless-drill"
        return DoctorFinding("rights", "rights", "note", text, "hitless drill --cluster --dry-run")
    return DoctorFinding("rights", "rights", "ok", "enough for a drill's pods; --dry-run prints every right")


def _costs(kubeconfig: Path | None, context: str | None) -> list[DoctorFinding]:
    """What a restart costs, per release, as ``advise`` reports it."""
    notes: list[str] = []
    try:
        answers = clusters.advise_cluster(releases.packaged(), kubeconfig, context, notes)
    except ApiError as error:
        return [DoctorFinding("cost", "cost of a restart", "unknown", str(error))]
    found: list[DoctorFinding] = []
    for one in answers:
        nodes = f"{len(one.nodes)} {'node' if len(one.nodes) == 1 else 'nodes'}"
        flannel = f", flannel {one.flannel}" if one.flannel and one.flannel not in one.subject else ""
        text = f"{one.subject}{flannel} on {nodes}: {one.summary}"
        state, essential = _OF_STATUS[one.status], one.status == "unknown"
        found.append(DoctorFinding("cost", "cost of a restart", state, text, "hitless advise --cluster", essential))
    return found + [DoctorFinding("cost", "cost of a restart", "note", note) for note in notes]


def _next(found: dict[str, DoctorFinding], context: str | None) -> tuple[str, str]:
    where = f" --context {context}" if context else ""
    agent = found["agent"]
    if agent.state != "ok" and agent.command:
        return agent.command, "the network agent comes first"
    if found["guard"].state == "problem":
        return found["guard"].command, "the guard is not everywhere"
    return (
        f"hitless drill --cluster{where} --dry-run",
        "prints every object, call and right of a drill, and changes nothing",
    )
