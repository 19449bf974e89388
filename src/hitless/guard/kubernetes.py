"""Kubernetes Events about gaps, for users of ``kubectl get events``. Only with ``--events``, in a cluster.

Problem: a client library costs the guard its memory bound, and the API server is away just when there is something to
tell (the network agent restarts). Promise: one POST per record that matters, from a thread with a bounded queue; what
TLS needs is loaded at the first one. A try that failed is repeated for some minutes under the same name, so that an
Event whose answer was lost is not there twice; what the server will never take is given up at once; what was not
posted is counted and logged. At most one Event of a kind every ``_QUIET`` seconds; the next one says how many there
were, and since when. Needs ``create`` on ``events`` of the core group in "default", and nothing else.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hitless.cleaning import clean
from hitless.daemon.logs import Log
from hitless.errors import InputError, ours
from hitless.guard import records
from hitless.kube import contexts
from hitless.kube.objects import EVENTS

__all__ = ["ApiServer", "Poster", "Refused", "event"]

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NAMESPACE = "default"  # where Events about what has no namespace belong, as Nodes
_QUIET = 60.0
_WAITING = 100
_WHOLE = 30.0  # seconds for a whole answer
_LONGEST = 1 << 18  # bytes of an answer: the Event
_MOST = 1024
_AGAIN = (1.0, 5.0, 15.0, 60.0, 120.0)  # seconds between tries
_FINAL = (400, 404, 405, 413, 415, 422)  # trying again does not help; it does where rights or a token may come yet

Send = Callable[[bytes], None]
"""Posts an Event; raises ``OSError`` when that failed, ``Refused`` when it always will."""


class Refused(Exception):
    """The server will not take this Event."""


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The API server as a pod sees it: one connection for each Event, they are rare."""

    environment: Mapping[str, str]
    account: Path

    def send(self, body: bytes) -> None:
        """POST an Event; one that is there already was posted by an earlier try."""
        from hitless.kube import answers, transport  # 8 MB with TLS: not before there is something to post

        connection = contexts.account(self.environment, folder=self.account)  # it is renewed on disk
        if connection is None:
            raise OSError(f"there is no account in {self.account}")
        to = transport.Transport(connection, self.environment, "hitless-guard")
        headers = {"Content-Type": "application/json"}
        answer = to.ask("POST", EVENTS.path(_NAMESPACE), body, headers, within=_WHOLE, most=_LONGEST)
        if 200 <= answer.status < 300 or answer.status == 409:
            return
        problem = f"HTTP {answer.status}: {answers.message(answer.body)[:300]}"
        if answer.status in _FINAL:
            raise Refused(problem)
        raise OSError(problem)


def event(record: records.Record, node: str) -> dict[str, object] | None:
    """The Event for a record, or ``None`` when there is nothing to report.

    Of the core group and without ``eventTime``, as a kubelet posts them: so ``kubectl describe node`` finds them (by a
    ``uid`` that is the Node's name), and the rules for ``action`` and ``reportingInstance`` of events.k8s.io/v1 do not
    hold. The name is the record's own: a second POST of the same is a conflict and no second Event.
    """
    match record:
        case records.GuardGap():
            kind, reason = ("Normal", "EgressGapCovered") if record.covered else ("Warning", "EgressGap")
            kind, reason = ("Warning", "EgressGapOpen") if record.open else (kind, reason)
            been = "has been gone" if record.open else "was gone"
            by = record.opened_by.comm if record.opened_by is not None else "unknown"
            text = (
                f"{', '.join(record.networks)}: masquerading {been} for {(record.end - record.begin) / 1e6:.0f} ms "
                f"(by {by}); flows carried {record.carried}, packets leaked {record.leaked}, "
                f"flows healed {record.healed}"
            )
        case records.ForwardGap():
            kind, reason = "Warning", "ForwardGap"
            by = record.opened_by.comm if record.opened_by is not None else "unknown"
            text = (
                f"{', '.join(record.networks)}: forwarding {'drops' if record.open else 'dropped'} new flows for "
                f"{(record.end - record.begin) / 1e6:.0f} ms (by {by}): {record.reason}"
            )
        case records.Withdrawn():
            kind, reason, text = "Warning", "GuardWithdrawn", f"{record.family}: {record.why}"
        case _:
            return None
    now = _time(record.t)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": _name(node, record, reason), "namespace": _NAMESPACE},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "reason": reason,
        "message": _bounded(clean(text)),
        "type": kind,
        "source": {"component": "hitless-guard", "host": node},
        "reportingComponent": "hitless-guard",
        "reportingInstance": node[:128],
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _time(t: int) -> str:
    return datetime.fromtimestamp(t / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(node: str, record: records.GuardGap | records.ForwardGap | records.Withdrawn, reason: str) -> str:
    """A DNS subdomain of at most 253 letters, in client-go's manner (object, dot, time), and one for each family."""
    own = f".{record.t:x}.{record.family}-{reason.lower()}"
    return node[: 253 - len(own)].rstrip("-.") + own


def _bounded(text: str, more: str = "") -> str:
    """1,024 bytes are what a server takes of a note; what comes last is kept."""
    room = _MOST - len(more.encode())
    return (text if len(text.encode()) <= room else text.encode()[: room - 3].decode("utf-8", "ignore") + "…") + more


class Poster:
    """Posts Events from a thread of its own."""

    def __init__(self, node: str, send: Send, log: Log, *, again: Sequence[float] = _AGAIN) -> None:
        self._node = node
        self._send = send
        self._log = log
        self._queue: queue.Queue[dict[str, object]] = queue.Queue(_WAITING)
        self._again = again
        self._posted: dict[str, float] = {}
        self._skipped: dict[str, tuple[int, int]] = {}  # how many, and when the first of them was
        self.dropped = 0
        threading.Thread(target=self._work, name="events", daemon=True).start()

    @classmethod
    def from_cluster(cls, environment: Mapping[str, str], log: Log, account: Path = _ACCOUNT) -> Poster:
        """From a pod's service account; raises ``InputError`` outside a cluster."""
        node = environment.get("NODE_NAME", "")
        if not node or contexts.account(environment, folder=account) is None:
            raise InputError(
                "this is not a pod of a cluster", where="--events", expected="a service account and NODE_NAME"
            )
        return cls(node, ApiServer(environment, account).send, log)

    def post(self, record: records.Record) -> None:
        """Queue the record's Event, if it has one and its kind was not posted just now."""
        made = event(record, self._node)
        if made is None:
            return
        kind, now = str(made["reason"]), time.monotonic()
        more, first = self._skipped.pop(kind, (0, record.t))
        if now - self._posted.get(kind, -_QUIET) < _QUIET:
            self._skipped[kind] = (more + 1, first)
            return
        self._posted[kind] = now
        if more:
            message = _bounded(str(made["message"]), f"; {more} more since the last Event of this kind")
            made |= {"count": more + 1, "message": message, "firstTimestamp": _time(first)}
        try:
            self._queue.put_nowait(made)
        except queue.Full:
            self.dropped += 1

    def _work(self) -> None:
        while True:
            made = self._queue.get()
            try:
                self._post(json.dumps(made).encode())
            except Exception as error:  # noqa: BLE001 - one Event is lost, and not all that come after it
                self.dropped += 1
                self._log.error("cannot post an Event", reason=str(ours(error, "posting an Event")))

    def _post(self, body: bytes) -> None:
        problem, again = self._try(body)
        for wait in self._again:
            if not again:
                break
            time.sleep(wait)  # this thread's only work; those that come meanwhile wait in the queue
            problem, again = self._try(body)
        if problem:
            self.dropped += 1
            self._log.warning("cannot post an Event", reason=problem)

    def _try(self, body: bytes) -> tuple[str, bool]:
        """Post once; the reason when that failed, and whether another try is worth it."""
        try:
            self._send(body)
        except Refused as refused:
            return str(refused), False
        except (OSError, ValueError, InputError) as error:  # TLS errors and timeouts are OSErrors
            return str(error) or type(error).__name__, True
        return "", False
