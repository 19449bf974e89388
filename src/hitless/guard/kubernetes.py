"""Kubernetes Events about gaps, for people who look at ``kubectl get events``. Only with ``--events``, in a cluster.

Problem: a client library costs the guard its memory bound. Promise: one POST per record that matters, by the standard
library, from a thread with a bounded queue. While the API server is away (often just when the network agent restarts)
the guard does not wait: an Event is tried again for some minutes, and what was not posted then is counted and logged.
At most one Event of a kind every ``_QUIET`` seconds; the next one says how many there were. Needs ``create`` on
``events``.
"""

from __future__ import annotations

import json
import queue
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hitless.agent.logs import Log
from hitless.errors import InputError
from hitless.guard import records

__all__ = ["Poster", "event"]

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_QUIET = 60.0
_WAITING = 100
_PATIENCE = 10.0
_AGAIN = (1.0, 5.0, 15.0, 60.0, 120.0)  # seconds between tries

Send = Callable[[bytes], None]


def event(record: records.Record, node: str, namespace: str) -> dict[str, object] | None:
    """The Event for a record, or ``None`` when it is nobody's news."""
    match record:
        case records.Gap():
            kind, word = ("Normal", "EgressGapCovered") if record.covered else ("Warning", "EgressGap")
            kind, word = ("Warning", "EgressGapOpen") if record.open else (kind, word)
            been = "has been gone" if record.open else "was gone"
            by = record.opened_by.comm if record.opened_by is not None else "unknown"
            text = (
                f"{', '.join(record.networks)}: masquerading {been} for {(record.end - record.begin) / 1e6:.0f} ms "
                f"(by {by}); flows carried {record.carried}, packets leaked {record.leaked}, "
                f"flows healed {record.healed}"
            )
        case records.ForwardGap():
            kind, word = "Warning", "ForwardGap"
            by = record.opened_by.comm if record.opened_by is not None else "unknown"
            text = (
                f"{', '.join(record.networks)}: forwarding {'drops' if record.open else 'dropped'} new flows for "
                f"{(record.end - record.begin) / 1e6:.0f} ms (by {by}): {record.reason}"
            )
        case records.Withdrawn():
            kind, word, text = "Warning", "GuardWithdrawn", f"{record.family}: {record.why}"
        case _:
            return None
    now = datetime.fromtimestamp(record.t / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "hitless-guard-", "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "reason": word,
        "message": text[:1024],
        "type": kind,
        "source": {"component": "hitless-guard", "host": node},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


class Poster:
    """Posts Events from a thread of its own."""

    def __init__(
        self, node: str, send: Send, log: Log, *, namespace: str = "default", again: Sequence[float] = _AGAIN
    ) -> None:
        self._node = node
        self._send = send
        self._log = log
        self._namespace = namespace  # Events about Nodes belong into "default"
        self._queue: queue.Queue[dict[str, object]] = queue.Queue(_WAITING)
        self._again = again
        self._posted: dict[str, float] = {}
        self._skipped: dict[str, int] = {}
        self.dropped = 0
        threading.Thread(target=self._work, name="events", daemon=True).start()

    @classmethod
    def from_cluster(cls, environment: Mapping[str, str], log: Log) -> Poster:
        """From a pod's service account; raises ``InputError`` outside a cluster."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        node = environment.get("NODE_NAME", "")
        if not host or not node or not (_ACCOUNT / "token").exists():
            raise InputError(
                "this is no pod of a cluster", where="--events", expected="a service account and NODE_NAME"
            )
        context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
        base = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

        def send(body: bytes) -> None:
            token = (_ACCOUNT / "token").read_text().strip()  # it is renewed on disk
            request = urllib.request.Request(
                f"{base}/api/v1/namespaces/default/events",
                body,
                {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                method="POST",
            )
            with urllib.request.urlopen(request, timeout=_PATIENCE, context=context) as answer:
                answer.read()

        return cls(node, send, log)

    def post(self, record: records.Record) -> None:
        """Queue the record's Event, if it has one and its kind was not posted just now."""
        made = event(record, self._node, self._namespace)
        if made is None:
            return
        kind, now = str(made["reason"]), time.monotonic()
        if now - self._posted.get(kind, -_QUIET) < _QUIET:
            self._skipped[kind] = self._skipped.get(kind, 0) + 1
            return
        self._posted[kind] = now
        if more := self._skipped.pop(kind, 0):
            made |= {"count": more + 1, "message": f"{made['message']}; {more} more since the last Event of this kind"}
        try:
            self._queue.put_nowait(made)
        except queue.Full:
            self.dropped += 1

    def _work(self) -> None:
        while True:
            body = json.dumps(self._queue.get()).encode()
            problem = self._try(body)
            for wait in self._again:
                if not problem:
                    break
                time.sleep(wait)  # this thread's only work; those that come meanwhile wait in the queue
                problem = self._try(body)
            if problem:
                self.dropped += 1
                self._log.warning("cannot post an Event", reason=problem)

    def _try(self, body: bytes) -> str:
        """Post once; the reason when that failed."""
        try:
            self._send(body)
        except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
            return str(error)
        return ""
