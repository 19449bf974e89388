"""The daemon: creates all parts of the agent from its options, runs them, and ends them.

Problem: wrong input must be reported before the kernel is touched. Promise: files and flags are read and checked first
(``InputError``). Then the loop gets its snapshots: at once from flags or the last subnet.env, later from Kubernetes or
the leases. SIGTERM and SIGINT end the daemon and change nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hitless.agent.change_watch import ChangeWatch
from hitless.agent.health import Health
from hitless.agent.judge import NodeJudge
from hitless.agent.loop import AgentLoop
from hitless.agent.metrics import agent_metrics
from hitless.agent.node import AgentNode, AllRules
from hitless.agent.overlay.source import lease_source, network_configuration, remembered
from hitless.agent.pages import serve
from hitless.agent.ports import LegacyTables
from hitless.agent.reporter import AgentReporter
from hitless.agent.runtime import SYSTEM, AsyncRuntime
from hitless.agent.worker import RulesWorker
from hitless.daemon.logs import Log, Stream
from hitless.daemon.metrics import Metrics
from hitless.daemon.notify import Notifier
from hitless.daemon.signals import when_ended
from hitless.errors import InputError, ours
from hitless.kernel.commits import Commits
from hitless.kernel.cpu_priority import favour
from hitless.kernel.memory import return_large_blocks
from hitless.kernel.namespaces import HERE
from hitless.model.families import Network
from hitless.model.overlay import BackendConfig, WireguardConfig
from hitless.sources import NetConf, Options, SourceSnapshot, snapshot_from
from hitless.sources.backends import backend_config
from hitless.sources.lease_source import LeaseSource
from hitless.sources.subnets import SubnetFile, read_subnet_file, render_subnet_file, write_subnet_file

if TYPE_CHECKING:
    from hitless.kernel.links.wireguard import Secrets
    from hitless.sources.kubernetes import NodeSource

__all__ = ["first_snapshot", "run", "snapshot_of"]


def first_snapshot(options: Options, netconf: NetConf) -> SourceSnapshot | None:
    """The snapshot that flags and files give; ``None``: wait for Kubernetes or the leases. Raises ``InputError``.

    Flags come first. A subnet.env that does not fit net-conf.json is an error only where nothing else can correct it.
    """
    if options.node_subnets:
        return snapshot_of(options, netconf, options.node_subnets, "--node-subnet")
    path = Path(options.subnet_file)
    try:
        known = read_subnet_file(path)
        if known is not None and known.subnets:
            return snapshot_of(options, netconf, known.subnets, str(path))
    except InputError:
        if not options.kubernetes:
            raise
    if options.kubernetes or options.lease_dir or options.etcd.endpoints:
        return None
    raise InputError(
        "this node's subnet is not known",
        where=f"--kube-subnet-mgr, --etcd-endpoints, --node-subnet, {path}",
        expected="--kube-subnet-mgr to ask Kubernetes, --etcd-endpoints URL, --node-subnet NETWORK, or a subnet.env "
        "of an earlier run",
    )


def snapshot_of(options: Options, netconf: NetConf, subnets: tuple[Network, ...], origin: str) -> SourceSnapshot:
    """The rules' snapshot of these options and subnets. Raises ``InputError``."""
    return snapshot_from(
        netconf,
        subnets,
        masquerade=options.masquerade,
        random_fully=options.random_fully,
        forward=options.forward,
        origin=origin,
    )


def _kubernetes(options: Options) -> NodeSource | None:
    if not options.kubernetes or options.node_subnets:
        return None
    from hitless.sources.kubernetes import NodeSource

    return NodeSource.from_options(options)


async def run(options: Options, log_stream: Stream, started: float) -> None:
    """Run until SIGTERM or SIGINT. Raises ``InputError`` before anything is touched, ``MissingError`` where this
    machine lacks a program, permission or kernel module."""
    return_large_blocks()
    favour()
    log = Log(log_stream, verbosity=options.verbosity, node=options.node_name)

    def log_leases(reason: str) -> None:
        log.warning("leases", reason=reason)

    def log_key(reason: str) -> None:
        log.warning("wireguard key", reason=reason)

    state = remembered(options, log_leases)
    netconf, config = network_configuration(options, state, log_leases)
    snapshot = first_snapshot(options, netconf)
    source = lease_source(options, netconf, state, log_leases, config)
    kubernetes = _kubernetes(options) if source is None else None
    backend = backend_config(netconf) if source is not None else None
    secrets = None
    if isinstance(backend, WireguardConfig):
        from hitless.agent.overlay.keys import key_file, secrets_of

        secrets = secrets_of(backend, key_file(options.environment), log_key)
    metrics, notifier = agent_metrics(), Notifier(options.environment)
    health = Health(stale_after=3 * options.resync)
    metrics.set("hitless_build_info", 1, version=_version())
    with contextlib.ExitStack() as serving:
        if options.healthz_port:
            health.turned = SYSTEM.monotonic()
            serving.enter_context(serve(options.healthz_ip, options.healthz_port, health, metrics, log))
        feeds = _Feeds(snapshot, kubernetes, source, backend, secrets, config)
        await _work(options, log, metrics, health, notifier, netconf, feeds, started)


@dataclass(frozen=True, slots=True)
class _Feeds:
    """Where the node's subnet comes from: a snapshot known at the start, the Kubernetes API, or the leases."""

    snapshot: SourceSnapshot | None
    kubernetes: NodeSource | None
    source: LeaseSource | None
    backend: BackendConfig | None
    secrets: Secrets | None
    config: str


def _watch(runtime: AsyncRuntime) -> ChangeWatch:
    """The watch for changed rules, in this event loop."""
    event_loop = asyncio.get_running_loop()
    commits = Commits()

    def listen(collect: Callable[[], None]) -> Callable[[], None]:
        event_loop.add_reader(commits.fileno(), collect)

        def end() -> None:
            event_loop.remove_reader(commits.fileno())

        return end

    def legacy(changed: Callable[[int, str], None]) -> LegacyTables:
        from hitless.agent.legacy import legacy_watch

        return legacy_watch(HERE, event_loop, runtime, changed)

    return ChangeWatch(commits, runtime, listen=listen, legacy=legacy)


async def _turn(health: Health) -> None:
    """Record once a second that the event loop runs."""
    while True:
        health.turned = SYSTEM.monotonic()
        await asyncio.sleep(1.0)


async def _work(
    options: Options, log: Log, metrics: Metrics, health: Health, notifier: Notifier, netconf: NetConf,
    feeds: _Feeds, started: float,
) -> None:  # fmt: skip
    runtime = AsyncRuntime()
    watch = _watch(runtime)
    loop = AgentLoop(
        RulesWorker(AgentNode(lock_wait=options.lock_wait), options.backend, runtime),
        NodeJudge(AllRules(give_way=runtime.give_way), runtime),
        watch,
        AgentReporter(log, metrics, health, notifier, started=started),
        runtime,
        resync=options.resync,
        heal=options.heal,
    )
    watch.on_change, watch.on_foreign_change = loop.rules_changed, loop.foreign_rules_changed

    def failed(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        reason = str(ours(error, "a part of the agent")) if isinstance(error, BaseException) else context.get("message")
        log.error("internal failure", reason=str(reason))
        loop.rules_changed()  # an event may have been lost with it

    asyncio.get_running_loop().set_exception_handler(failed)
    when_ended(asyncio.get_running_loop(), loop.stop)
    log.info("start", version=_version(), netconf=netconf.where, masquerade=options.masquerade, forward=options.forward)
    if options.ignored:
        flags = ", ".join(f"--{name}" for name in options.ignored)
        log.info("flags ignored", flags=flags, reason="no effect in this version")
    if netconf.unused:
        log.info("fields without effect", netconf=netconf.where, fields=list(netconf.unused))
    keeper = _SubnetKeeper(options, netconf, loop, log)
    source = "Kubernetes" if feeds.source is None else str(feeds.source)
    if feeds.snapshot is None:
        health.waiting_for = f"this node's subnet from {source}"
        log.info("waiting", reason=f"this node's subnet is asked of {source}; existing rules stay")
    else:
        keeper.adopt(feeds.snapshot)
    tasks = [asyncio.create_task(_turn(health))]
    if feeds.kubernetes is not None:
        tasks.append(asyncio.create_task(keeper.follow(feeds.kubernetes, health)))
    if feeds.source is not None and feeds.backend is not None:
        from hitless.agent.overlay.service import Overlay  # 20 ms, only where there are leases

        overlay = Overlay(
            options, netconf, feeds.backend, feeds.source, log, metrics, health, SYSTEM.monotonic, keeper.take,
            feeds.secrets, feeds.config,
        )  # fmt: skip
        tasks.append(asyncio.create_task(overlay.run()))
    try:
        await loop.run()
    finally:
        notifier.say("STOPPING=1")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        log.info("stop", reason="rules stay as they are")


class _SubnetKeeper:
    """Gives the loop its snapshots, and keeps subnet.env."""

    def __init__(self, options: Options, netconf: NetConf, loop: AgentLoop, log: Log) -> None:
        self._options, self._netconf, self._loop, self._log = options, netconf, loop, log

    def take(self, subnets: Sequence[Network], mtu: int) -> None:
        """The overlay's subnets, and what its pods' interfaces may send at once."""
        self.adopt(snapshot_of(self._options, self._netconf, tuple(subnets), "leases"), mtu)

    def adopt(self, snapshot: SourceSnapshot, mtu: int | None = None) -> None:
        """From now on this is the desired state."""
        subnets = [str(networks.subnet) for networks in snapshot.networks.values()]
        self._log.info("snapshot", origin=snapshot.origin, subnets=subnets)
        self._loop.desire(snapshot, native=self._netconf.nftables)
        path = Path(self._options.subnet_file)
        try:
            known = read_subnet_file(path)
        except InputError:
            known = None
        try:
            text = render_subnet_file(snapshot, mtu or _mtu(self._netconf, known))
            if write_subnet_file(path, text):
                self._log.info("subnet file", path=str(path))
        except OSError as error:
            self._log.warning("subnet file", path=str(path), reason=f"cannot be written: {error.strerror}")

    async def follow(self, source: NodeSource, health: Health) -> None:
        """Ask for the node's subnets at intervals; a wrong or missing answer changes nothing."""
        gap = 1.0
        last: SourceSnapshot | None = None
        while True:
            try:
                subnets = await asyncio.to_thread(source.subnets)
                snapshot = snapshot_of(self._options, self._netconf, subnets, str(source))
                if snapshot != last:
                    last = snapshot
                    self.adopt(snapshot)
                gap = 60.0  # a node's podCIDR changes only when the node is created again
            except Exception as failure:  # noqa: BLE001 - the outermost handler: else the subnets would never be asked for again
                error = ours(failure, "asking Kubernetes")
                health.waiting_for = f"this node's subnet from Kubernetes: {error}"
                self._log.warning("kubernetes not answering", reason=str(error))
                gap = min(gap * 2, 30.0)
            await asyncio.sleep(gap)


def _mtu(netconf: NetConf, known: SubnetFile | None) -> int:
    """The MTU of flannel's subnet.env, where there is one; else that of the configuration."""
    if known is not None and known.mtu is not None:
        return known.mtu
    # 50 bytes of VXLAN over IPv4 on a link of 1500 (flannel: backend/vxlan), unless configured
    return netconf.mtu or 1450


def _version() -> str:
    from hitless import __version__

    return __version__


def started_at() -> float:
    """When this process was started, on the monotonic clock, the interpreter's own start included."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        import os

        age = uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return SYSTEM.monotonic() - max(0.0, age)
    except (OSError, ValueError, IndexError):
        return SYSTEM.monotonic()
