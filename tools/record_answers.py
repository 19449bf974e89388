"""Records what a real kube-apiserver answers, for tests/samples/kubernetes/answers.json.

Problem: answers that were written by hand are what somebody remembered. Promise: each is asked for on a real server
(``python -m tools.real_cluster up``), with names, addresses, uids and versions made neutral; what could not be had is
left as it was and named. It makes three namespaces and a Node without a kubelet, and removes them:
run it on a cluster of your own, with nothing else going on. In the control plane's namespace, as administrator:

    nsenter --net=/run/netns/hitless-k8s -- .venv/bin/python tools/record_answers.py \
        --kubeconfig …/pki/admin.kubeconfig --image ghcr.io/hitless/hitless:VERSION
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx2

from hitless.kube.api import Api, connect

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "tests/samples/kubernetes/answers.json"
PLACE, STRICT, ENDING = "hitless-drill", "hitless-strict", "hitless-ending"
AWAY = "192.0.2.11"
"""The address that a node without a kubelet has in the samples."""

Document = dict[str, Any]


class Recorder:
    """Asks one server."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.found: dict[str, Document] = {}
        self.failed: dict[str, str] = {}

    async def ask(self, method: str, path: str, body: Document | None = None, **more: Any) -> httpx2.Response:
        """One call, as it is."""
        kind = {"PATCH": "application/merge-patch+json"}.get(method, "application/json")
        headers = {"Content-Type": kind, **more.pop("headers", {})}
        content = None if body is None else json.dumps(body).encode()
        return await self.api.client.request(method, path, content=content, headers=headers, **more)

    async def make(self, path: str, body: Document) -> Document:
        """Make an object, or end."""
        answer = await self.ask("POST", path, body)
        if answer.status_code not in (200, 201, 409):
            raise RuntimeError(f"POST {path}: {answer.status_code}: {answer.text[:300]}")
        made: Document = answer.json()
        return made

    def keep(self, name: str, answer: httpx2.Response, status: int) -> None:
        """An answer, if it is the refusal that was meant."""
        if answer.status_code != status:
            self.failed[name] = f"{answer.status_code} in place of {status}: {answer.text[:200]}"
        elif "json" in answer.headers.get("Content-Type", ""):
            self.found[name] = {"status": status, "body": answer.json()}
        else:
            headers = {name: answer.headers[name] for name in ("Retry-After", "Content-Type") if name in answer.headers}
            self.found[name] = {"status": status, "headers": headers, "text": answer.text}


def pod(name: str, *, namespace: str = PLACE, **spec: Any) -> Document:
    """A pod of the image that every node of the real cluster has."""
    container = {"name": "c", "image": "localhost/pause:1", "imagePullPolicy": "Never"}
    whole = {"containers": [container], "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
    metadata = {"name": name, "namespace": namespace, "labels": {"app": "x"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**whole, **spec}}


def pods(namespace: str = PLACE) -> str:
    """The path of a namespace's pods."""
    return f"/api/v1/namespaces/{namespace}/pods"


async def prepare(one: Recorder) -> None:
    """The namespaces, and a pod that runs."""
    for name, labels in ((PLACE, {}), (STRICT, {"pod-security.kubernetes.io/enforce": "restricted"}), (ENDING, {})):
        await one.make("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        for _ in range(100):
            if (await one.ask("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")).is_success:
                break
            await asyncio.sleep(0.2)
    await one.make(pods(), pod("rke2-canal-x"))
    for _ in range(300):
        found = (await one.ask("GET", f"{pods()}/rke2-canal-x")).json()
        ready = [each["status"] for each in found["status"].get("conditions", ()) if each["type"] == "Ready"]
        if ready == ["True"]:
            return
        await asyncio.sleep(0.2)
    raise RuntimeError("the pod rke2-canal-x is not ready after a minute")


async def refusals(one: Recorder) -> None:
    """What needs a single call."""
    user = {"Impersonate-User": f"system:serviceaccount:{PLACE}:{PLACE}"}
    one.keep("forbidden", await one.ask("GET", pods("kube-system"), headers=user), 403)
    one.keep("not_found", await one.ask("GET", f"{pods('default')}/gone"), 404)
    mine = {"metadata": {"name": "mine"}}
    await one.make(f"/api/v1/namespaces/{PLACE}/configmaps", mine)
    one.keep("already_exists", await one.ask("POST", f"/api/v1/namespaces/{PLACE}/configmaps", mine), 409)
    wrong = pod("x")
    del wrong["spec"]["containers"][0]["image"]
    one.keep("invalid", await one.ask("POST", pods(), wrong), 422)
    strange = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "1c6a"}}
    one.keep("uid_precondition", await one.ask("DELETE", f"{pods()}/rke2-canal-x", strange), 409)
    security = {"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}
    security |= {"allowPrivilegeEscalation": False, "seccompProfile": {"type": "RuntimeDefault"}}
    watching = pod("hitless-watch-d1-35971be6", namespace=STRICT, hostNetwork=True)
    watching["spec"]["containers"][0] |= {"name": "hitless", "securityContext": security}
    one.keep("pod_security", await one.ask("POST", pods(STRICT), watching), 403)
    without = pod("hitless-probe-d1-35971be6", serviceAccountName="drill")
    one.keep("no_service_account", await one.ask("POST", pods(), without), 403)


async def ending(one: Recorder) -> None:
    """A namespace that cannot end, because something in it waits for a finalizer."""
    held = f"/api/v1/namespaces/{ENDING}/configmaps"
    await one.make(held, {"metadata": {"name": "held", "finalizers": ["hitless.dev/hold"]}})
    await one.ask("DELETE", f"/api/v1/namespaces/{ENDING}")
    one.keep("namespace_terminating", await one.ask("POST", pods(ENDING), pod("x", namespace=ENDING)), 403)
    await one.ask("PATCH", f"{held}/held", {"metadata": {"finalizers": None}})


async def evictions(one: Recorder) -> None:
    """One budget that allows none, then two."""
    path = f"/apis/policy/v1/namespaces/{PLACE}/poddisruptionbudgets"
    document = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "rke2-canal-x", "namespace": PLACE}}
    for name, sample, status in (("keep", "eviction_budget", 429), ("other", "eviction_two_budgets", 500)):
        budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}
        await one.make(path, {"metadata": {"name": name}, "spec": budget})
        for _ in range(100):
            found = (await one.ask("GET", f"{path}/{name}")).json()
            if found.get("status", {}).get("observedGeneration"):
                break
            await asyncio.sleep(0.2)
        one.keep(sample, await one.ask("POST", f"{pods()}/rke2-canal-x/eviction", document), status)


async def expiry(one: Recorder, etcd: str) -> None:
    """A page and a watch from before etcd's last compaction."""
    version = int((await one.ask("GET", pods())).json()["metadata"]["resourceVersion"])
    body = json.dumps({"revision": version, "physical": True}).encode()
    request = urllib.request.Request(f"{etcd}/v3/kv/compaction", body, method="POST")
    await asyncio.to_thread(urllib.request.urlopen, request, timeout=30)
    token = json.dumps({"v": "meta.k8s.io/v1", "rv": 2, "start": "default/a\u0000"}, separators=(",", ":"))
    more = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    one.keep("list_expired", await one.ask("GET", f"{pods()}?limit=1&continue={more}"), 410)


async def watching(one: Recorder) -> list[Document]:
    """A pod that comes and goes, a bookmark, and a watch that is too old."""
    listed = (await one.ask("GET", pods("default"))).json()["metadata"]["resourceVersion"]
    path = f"{pods('default')}?watch=true&allowWatchBookmarks=true&timeoutSeconds=8&resourceVersion={listed}"

    async def follow(path: str) -> list[Document]:
        async with one.api.client.stream("GET", path, timeout=30) as answer:
            return [json.loads(line) async for line in answer.aiter_lines() if line]

    following = asyncio.create_task(follow(path))
    await asyncio.sleep(0.5)
    await one.make(pods("default"), pod("a", namespace="default"))
    await asyncio.sleep(4)
    await one.ask("DELETE", f"{pods('default')}/a")
    events = await following
    old = await follow(f"{pods('default')}?watch=true&timeoutSeconds=5&resourceVersion=1")
    return [*events, *old]


async def commands(one: Recorder, image: str) -> dict[str, Document]:
    """The error channel of commands that end well, with a code, and that are not there."""
    found: dict[str, Document] = {}
    running = pod("commands")
    running["spec"]["containers"][0] |= {
        "image": image,
        "command": ["/usr/bin/python3", "-c", "import signal; signal.pause()"],
    }
    await one.make(pods(), running)
    for _ in range(300):
        if (await one.ask("GET", f"{pods()}/commands")).json()["status"].get("phase") == "Running":
            break
        await asyncio.sleep(0.2)
    python = ["/usr/bin/python3", "-c"]
    asked = {"success": [*python, ""], "exit_3": [*python, "raise SystemExit(3)"], "no_program": ["nope"]}
    for name, words in asked.items():
        found[name] = await _command(one, "commands", words)
    return found


async def _command(one: Recorder, name: str, words: list[str]) -> Document:
    params = httpx2.QueryParams([*(("command", each) for each in words), ("stdout", "1"), ("stderr", "1")])
    protocols = ["v5.channel.k8s.io", "v4.channel.k8s.io"]
    async with one.api.websocket(f"{pods()}/{name}/exec", params, protocols) as socket:
        while True:
            message = await socket.receive_bytes(timeout=30)
            if message and message[0] == 3:
                told: Document = json.loads(message[1:])
                return told


async def away(one: Recorder, address: str) -> Document:
    """The log and a command of a pod on a node that has no kubelet."""
    await one.make("/api/v1/nodes", {"metadata": {"name": "away"}})
    status = {"status": {"addresses": [{"type": "InternalIP", "address": address}]}}
    await one.ask("PATCH", "/api/v1/nodes/away/status", status)
    await one.make(pods(), pod("lost", nodeName="away", tolerations=[{"operator": "Exists"}]))
    one.keep("kubelet_away", await one.ask("GET", f"{pods()}/lost/log"), 500)
    return await _command(one, "lost", ["x"])


async def remove(one: Recorder) -> None:
    """All that was made."""
    now = {"gracePeriodSeconds": 0}
    await one.ask("DELETE", f"{pods()}/lost", now)
    await one.ask("DELETE", f"{pods('default')}/a", now)
    places = [f"/api/v1/namespaces/{name}" for name in (PLACE, STRICT, ENDING)]
    for path in (*places, "/api/v1/nodes/away"):
        await one.ask("DELETE", path)


def unauthorized(server: str) -> Document:
    """A token that nobody gave, without a certificate."""
    context = ssl._create_unverified_context()
    request = urllib.request.Request(f"{server}/api/v1/pods", headers={"Authorization": "Bearer none"})
    try:
        urllib.request.urlopen(request, context=context, timeout=30)
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": json.load(error)}
    raise RuntimeError("a token that nobody gave was taken")


def neutral(text: str, server: str) -> str:
    """The recording without what belongs to one cluster."""
    host = re.sub(r"^https://|:\d+$", "", server)
    text = text.replace(f"{host}:10250", f"{AWAY}:10250")
    text = re.sub(r"10\.88\.\d+\.\d+", "10.42.1.9", text).replace("10.200.0.", "192.0.2.")
    seen: dict[str, str] = {}
    uid = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
    text = uid.sub(lambda found: seen.setdefault(found[0], f"00000000-0000-4000-8000-{len(seen) + 1:012d}"), text)
    text = re.sub(r"\b[0-9a-f]{64}\b", lambda found: seen.setdefault(found[0], f"{len(seen) + 1:064x}"), text)
    return re.sub(r"20\d\d-\d\d-\d\dT\d\d:(\d\d:\d\d)", r"2026-11-23T10:\1", text)


async def record(kubeconfig: Path, etcd: str, image: str) -> tuple[Document, dict[str, str]]:
    """All that could be had, and why the rest could not."""
    told: Document = {}
    async with connect(kubeconfig) as api:
        one = Recorder(api)
        host = re.sub(r"^https://|:\d+$", "", str(api.server))
        try:
            one.found["unauthorized"] = await asyncio.to_thread(unauthorized, str(api.server).rstrip("/"))
            await prepare(one)
            parts: tuple[tuple[str, Coroutine[Any, Any, Any]], ...] = (
                *(("refusals", refusals(one)), ("ending", ending(one)), ("evictions", evictions(one))),
                *(("watch", watching(one)), ("exec", commands(one, image)), ("away", away(one, host))),
                ("expiry", expiry(one, etcd)),
            )
            for name, part in parts:
                try:
                    told[name] = await part
                except Exception as error:  # noqa: BLE001 - the border of a part: the others are recorded all the same
                    one.failed[name] = f"{type(error).__name__}: {error}"
        finally:
            await remove(one)
        version = (await one.ask("GET", "/version")).json()["gitVersion"]
        commanded = told.get("exec", {}) | ({"kubelet_away": told["away"]} if "away" in told else {})
        whole = {"answers": one.found, "watch": told.get("watch", []), "exec": commanded}
        found: Document = json.loads(neutral(json.dumps(whole), str(api.server)))
    return {"version": version, **found}, one.failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--etcd", default="http://127.0.0.1:2379", help="which is compacted; default: %(default)s")
    parser.add_argument("--image", required=True, help="one with /usr/bin/python3 that every node has")
    parser.add_argument("--out", type=Path, default=TARGET, help="default: %(default)s")
    options = parser.parse_args()
    found, failed = asyncio.run(record(options.kubeconfig, options.etcd, options.image))
    kept = json.loads(options.out.read_text()) if options.out.exists() else {"answers": {}, "watch": [], "exec": {}}
    recorded = sorted([*found["answers"], *(f"exec {name}" for name in found["exec"])])
    whole = {
        "about": f"Recorded from kube-apiserver {found['version']} by tools/record_answers.py; see README.md",
        "recorded": recorded,
        "answers": {name: found["answers"].get(name, kept["answers"].get(name)) for name in kept["answers"]},
        "watch": found["watch"] or kept["watch"],
        "exec": {**kept["exec"], **found["exec"]},
    }
    options.out.write_text(json.dumps(whole, indent=1) + "\n")
    for name, why in failed.items():
        print(f"not recorded: {name}: {why}", file=sys.stderr)
    print(f"{len(recorded)} recorded into {options.out}: {', '.join(recorded)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
