"""The drill's pods, from the driver's side: creating them, reading their streams, removing them.

Problem: what a pod measured must reach the record whole, although the connection to it may break at the worst moment.
Promise: a ``DrillPod`` is one pod: it is created, waited for (with the kubelet's message when it does not start), its
lines are recorded with the offset of the node's clock subtracted, and it is stopped and read to the last line; a stream
that ends without its tools' summaries is an error in the record. ``sweep`` removes everything of a drill, or of all.
Next stage: ``target``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import msgspec

from hitless.cluster import clocks, manifests, relay
from hitless.cluster.manifests import CONTAINER, SPOOL, Document
from hitless.cluster.pod_clock import PodClock
from hitless.drill.event_checks import EventCheck
from hitless.errors import ApiError, HitlessError, MissingError, ours
from hitless.kube import streams
from hitless.kube.api import Api
from hitless.kube.objects import CONFIG_MAPS, NAMESPACES, PODS, Kind, Object, Pod
from hitless.kube.pod_problems import PodProblem, pod_problem
from hitless.kube.server_messages import no_account_yet
from hitless.model import events as e

__all__ = ["DrillPod", "Listener", "gone", "sweep"]

Listener = Callable[[e.Event, str], None]
"""Takes an event and the name of its stream."""

_GRACE = 1
"""Seconds. 0 would take a pod out of the API while its container still runs, and holds its port, on the node."""

_ACCOUNT = 30.0
"""Seconds until a new namespace has its ServiceAccount, without which no pod is admitted."""

_HOPELESS = frozenset(
    {"ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"}
)


@dataclass
class DrillPod:
    """One pod of a drill and its stream. ``now`` is the driver's clock; ``say`` takes events, ``fail`` problems."""

    api: Api
    document: Document
    now: Callable[[], int]
    say: Listener
    fail: Callable[[str], None]
    ip: str = ""
    uid: str = ""
    _task: asyncio.Task[None] | None = None
    _stopping: bool = False
    _open: set[str] = field(default_factory=set)
    _begun: asyncio.Event = field(default_factory=asyncio.Event)
    _trouble: str = ""
    _removal_reported: bool = False
    _check: EventCheck = field(default_factory=EventCheck)

    @cached_property
    def _streams(self) -> frozenset[str]:
        """The streams that the pod may write: of its tools, and of the relay itself."""
        arguments = (self.document["spec"].get("containers") or [{}])[0].get("args", [])
        given = [value for option, value in pairwise(arguments) if option == "--tool"]
        return frozenset({relay.OWN, *(one.partition("=")[0] for one in given)})

    @cached_property
    def clock(self) -> PodClock:
        """Its node's clock."""
        return PodClock(self.api, self.name, self.namespace, self.node, self.now, lambda note: self.say(note, "drill"))

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.document["metadata"]["namespace"])

    @property
    def node(self) -> str:
        return str(self.document["spec"]["nodeName"])

    @property
    def role(self) -> str:
        """What it is there for: probe, watch, farend or peer."""
        return str(self.document["metadata"]["labels"]["app.kubernetes.io/component"])

    async def start(self, patience: float) -> None:
        """Create the pod, wait until it runs, and read its stream; raises ``MissingError`` when it does not start."""
        await self._make()
        seen = False

        def settled(pods: Mapping[str, Pod]) -> bool:
            nonlocal seen
            seen = seen or bool(pods)
            return _settled(pods) or (seen and not pods)

        pods = await self.api.wait_for(
            PODS, self.namespace, settled, within=patience, fields=f"metadata.name={self.name}"
        )
        pod = next(iter(pods.values()), None) if pods else None
        if pods is not None and pod is None:
            raise MissingError(_removed(self), remedy="who did? Then drill again")
        if pod is None or pod.status.phase != "Running":
            why = pod_problem(pod) if pod is not None else PodProblem(await self._pending(patience))
            raise MissingError(
                f"the pod {self.namespace}/{self.name} does not start on {self.node}: {why}", remedy=_remedy(why)
            )
        self.ip, self.uid = pod.status.pod_ip, pod.metadata.uid
        await self.clock.set()
        self._task = asyncio.create_task(self._listen())

    async def join(self) -> None:
        """Read the stream of a pod that runs already, from its first line; raises ``MissingError`` if it does not
        run."""
        found = await self.api.all(PODS, self.namespace, fields=f"metadata.name={self.name}")
        running = [one for one in found if one.status.phase == "Running" and one.metadata.deletion_timestamp is None]
        if not running:
            raise MissingError(
                f"the pod {self.namespace}/{self.name} on {self.node} does not run any more",
                remedy="measure again with pods of your own",
            )
        self.ip, self.uid = running[0].status.pod_ip, running[0].metadata.uid
        await self.clock.set()
        self._task = asyncio.create_task(self._listen())

    async def listening(self, patience: float) -> None:
        """Wait for its tool's first event, which a far end writes when it has its ports; raises ``MissingError``.

        On the host's network another drill may have them: it would answer our probes until it ends.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._begun.wait()
        if not self._open:
            raise MissingError(
                f"the {self.role} on {self.node} does not begin (pod {self.namespace}/{self.name}): "
                f"{self._trouble or f'it said nothing within {patience:g} s'}",
                remedy="another drill or program may hold its ports there: wait for it, or give another far end (--to)",
            )

    async def _pending(self, patience: float) -> str:
        """What is known of a pod that neither runs nor fails: often its network or its volumes are not set up."""
        found = await self.api.all(PODS, self.namespace, fields=f"metadata.name={self.name}")
        known = (
            "; ".join(filter(None, (str(pod_problem(one)) or one.status.phase for one in found))) or "it is not there"
        )
        events = f"kubectl get events -n {self.namespace} --field-selector involvedObject.name={self.name}"
        return f"not running after {patience:g} s ({known}); the kubelet's message: {events}"

    async def _make(self) -> None:
        end = self.api.patience.now() + _ACCOUNT
        while True:
            try:
                await self.api.create(PODS, self.document, self.namespace)
            except ApiError as error:
                if no_account_yet(error) and self.api.patience.now() < end:
                    await self.api.patience.sleep(0.5)
                    continue
                if error.status in (400, 403, 422):
                    raise MissingError(
                        f"the pod {self.namespace}/{self.name} is not admitted: {error}",
                        remedy="does Pod Security, a quota or a policy forbid it? See --namespace, --probe-namespace",
                    ) from error
                raise
            return

    async def _listen(self) -> None:
        command = ["hitless", "relay", "read", "--spool", SPOOL, "--from"]
        try:
            await streams.follow(
                self.api,
                self.name,
                self.namespace,
                CONTAINER,
                lambda offset: [*command, str(offset)],
                self._take,
                resumed=self._resumed,
                most=manifests.SPOOL_BYTES,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream is not read any more, and the drill must know
            why = ours(error, "listening to it")
            await self._fail(f"the stream of {self.name} on {self.node} broke: {why}")
            return
        finally:
            self._begun.set()
            if last := self._check.last():
                self.say(e.Note(t=self.now(), level="error", text=f"{last} (pod {self.name})"), "drill")
        if self._open:
            await self._fail(f"{', '.join(sorted(self._open))} on {self.node} ended without a message")
        elif not self._stopping:
            await self._fail(f"the tools on {self.node} ended by themselves (pod {self.name})")

    async def _fail(self, text: str) -> None:
        """Report a problem, or (once) that somebody removed the pod, where that is the reason."""
        why = await self._taken()
        if not why:
            self.fail(text)
        elif not self._removal_reported:
            self._removal_reported = True
            self.fail(why)

    async def confirm(self) -> None:
        """Report that somebody removed the pod, if so and not reported yet: a drill may end before its stream."""
        if not self._removal_reported and (why := await self._taken()):
            self._removal_reported = True
            self.fail(why)

    async def _taken(self) -> str:
        """Who or what ended the pod; empty when it was not ended, or the server is unreachable."""
        try:
            found = await self.api.all(PODS, self.namespace, fields=f"metadata.name={self.name}")
        except HitlessError:
            return ""
        mine = next((pod for pod in found if self.uid in ("", pod.metadata.uid)), None)
        if mine is not None and (why := mine.disruption or mine.status.reason):
            return f"the pod {self.namespace}/{self.name} ({self.role} on {self.node}) was ended by the cluster: {why}"
        return _removed(self) if mine is None or mine.metadata.deletion_timestamp is not None else ""

    def _resumed(self, offset: int, why: str) -> None:
        text = f"{self.name} on {self.node}: the connection broke ({why[:200]}); read on from byte {offset}"
        self.say(e.Note(t=self.now(), level="info", text=text), "drill")

    def _take(self, line: bytes) -> None:
        name, _, data = line.partition(b"\t")
        stream = name.decode(errors="replace")
        if stream not in self._streams:
            self.fail(f"{self.name} on {self.node} wrote a line of a stream that it does not have: {stream[:40]!r}")
            return
        try:
            event = clocks.shifted(e.decode(data), -self.clock.offset.ns)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.fail(f"{stream} on {self.node} wrote a line that is not an event: {error}")
            return
        taken, why = self._check.admit(event, stream, self.node)
        if why:
            self.say(e.Note(t=self.now(), level="error", text=f"{why} (pod {self.name})"), "drill")
        if not taken:
            return
        if isinstance(event, e.Header) and stream != relay.OWN:
            self._open.add(stream)
            self._begun.set()
        if stream == relay.OWN and isinstance(event, e.Note) and event.level == "error":
            self._trouble = event.text
            self._begun.set()
        if isinstance(event, e.Summary):
            self._open.discard(stream)
        self.say(event, "drill" if stream == relay.OWN else stream)

    async def stop(self, patience: float) -> None:
        """Ask the tools to end and listen to their last lines; nothing when they have ended."""
        if self._task is None:
            return
        self._stopping = True
        try:
            # the server may be away just now: its time is not the tools'
            async with asyncio.timeout(patience + self.api.patience.total):
                command = ["hitless", "relay", "stop", "--spool", SPOOL]
                await streams.output(self.api, self.name, self.namespace, CONTAINER, command)
                await asyncio.shield(self._task)
        except TimeoutError:
            await self._fail(f"the tools on {self.node} did not end within {patience:g} s (pod {self.name})")
        except ApiError as error:
            await self._fail(f"the tools on {self.node} could not be ended: {error}")

    async def remove(self) -> None:
        """Stop reading, and delete the pod."""
        await self.dismiss()
        await self.api.delete(PODS, self.name, self.namespace, grace=_GRACE)

    async def dismiss(self) -> None:
        """Stop reading, before the connection is closed; the pod is deleted with everything else."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _removed(station: DrillPod) -> str:
    return (
        f"somebody removed the pod {station.namespace}/{station.name} ({station.role} on {station.node}) "
        "while this drill was using it"
    )


def _remedy(why: PodProblem) -> str:
    if why.code == "ErrImageNeverPull":
        return "the node lacks the image; load it there: ctr -n k8s.io images import dist/hitless-image.tar"
    if why.ended:
        return "its last message says why; is the image (--image) of this version, and for the node's architecture?"
    return "is the image there (--image, --pull-policy), and does Pod Security allow it?"


def _settled(pods: Mapping[str, Pod]) -> bool:
    for pod in pods.values():
        if pod.status.phase in ("Running", "Succeeded", "Failed"):
            return True
        if pod_problem(pod).code in _HOPELESS:
            return True
    return False


async def gone(api: Api, stations: Iterable[DrillPod], within: float) -> None:
    """Wait until these pods are gone from their nodes, at most so many seconds: their host ports are free then."""
    by_place: dict[str, set[str]] = {}
    for one in stations:
        by_place.setdefault(one.namespace, set()).add(one.name)
    for place, names in by_place.items():

        def away(pods: Mapping[str, Pod], names: set[str] = names) -> bool:
            return not any(pod.name in names for pod in pods.values())

        await api.wait_for(PODS, place, away, within=within, labels=manifests.selector())


async def sweep(api: Api, namespaces: Iterable[str], identity: str = "") -> list[str]:
    """Remove the objects of one drill (or of every drill) in these namespaces, and a namespace that a drill made.

    Returns the names of what was removed. A namespace that does not exist is skipped.
    """
    removed: list[str] = []
    labels = manifests.selector(identity)
    for place in namespaces:
        try:
            made = await api.get(NAMESPACES, place)
        except ApiError as error:
            if error.status == 404:
                continue
            raise
        found: list[tuple[Kind[Any], Object]] = [(PODS, one) for one in await api.all(PODS, place, labels=labels)]
        found += [(CONFIG_MAPS, one) for one in await api.all(CONFIG_MAPS, place, labels=labels)]
        for kind, one in found:
            if await api.delete(kind, one.name, place, grace=_GRACE if kind is PODS else None, uid=one.metadata.uid):
                removed.append(f"{kind.plural} {place}/{one.name}")
        ours = made.label(manifests.CREATED_LABEL) == "true"
        if ours and (not identity or made.label(manifests.DRILL_LABEL) == identity):
            others = await api.all(PODS, place, labels=manifests.selector())
            if all(pod.metadata.deletion_timestamp for pod in others) and await api.delete(NAMESPACES, place):
                removed.append(f"namespace {place}")
    return removed
