"""The options that keep a drill inside of maintenance windows, and what follows from them.

Promise: with ``--window`` or ``--configmap`` nothing begins outside of a window, unless ``--force-window`` gives a
reason, which is recorded in the log's header and in every report. What ``--needs`` asks for counts for the beginning;
later rounds begin as long as the window is open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import click

from hitless.cleaning import clean
from hitless.drill.permits import Permit
from hitless.errors import InputError, MissingError

if TYPE_CHECKING:
    from hitless.operations.windows import Gate, Windows

__all__ = ["AskedWindows", "ClusterOptions", "Labels", "asked", "configmap", "options", "permit", "skipped"]

_F = TypeVar("_F", bound=Callable[..., Any])
Labels = Mapping[str, Mapping[str, str]]
"""Of nodes, by their names."""

_KEY = "hitless.cli.window_gate"
_LONGEST = 500


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    ctx.meta.setdefault(_KEY, {})[parameter.name] = value
    return value


def options(command: _F) -> _F:
    """Add the options; their values are kept for ``permit`` and are no arguments of the command."""
    path = click.Path(path_type=Path)
    for option in reversed(
        (
            _option("--window", type=path, metavar="FILE", help="Only inside of these maintenance windows."),
            _option("--configmap", metavar="NAMESPACE/NAME", help="The same, from a ConfigMap."),
            _option("--window-cluster", metavar="NAME", help="Which cluster this is, for its windows. [the context's]"),
            _option("--needs", metavar="DURATION", help="Begin only when so much of the window is left, e.g. 45m."),
            _option("--skip-outside", is_flag=True, help="Outside of them end with 0: for schedules."),
            _option("--force-window", metavar="REASON", help="Also outside of them; the reason is recorded."),
        )
    ):
        command = option(command)
    return command


def _option(*names: str, **rest: Any) -> Callable[[_F], _F]:
    return click.option(*names, expose_value=False, callback=_keep, **rest)


class ClusterOptions(Protocol):
    """How the cluster is reached, where the windows may be kept in it."""

    @property
    def kubeconfig(self) -> Path | None: ...

    @property
    def context(self) -> str | None: ...


@dataclass(frozen=True)
class AskedWindows:
    """The windows that were asked for, read once. ``reason``: why they are overruled; empty when they are not."""

    windows: Windows
    clusters: tuple[str, ...]
    needs: int
    reason: str
    skips: bool = False

    @property
    def config(self) -> Mapping[str, Any]:
        """For the log's header."""
        return {"windows": self.windows.source, "windows_sha256": self.windows.sha256}

    def gate(self, nodes: Sequence[str], *, needs: int = 0, labels: Labels | None = None) -> Gate:
        """For a run on these nodes; ``labels`` by node, as far as they are known."""
        from hitless.operations.windows import Gate

        return Gate(self.windows, clusters=self.clusters, nodes=nodes, needs=needs, labels=labels)


def asked(ctx: click.Context, *, cluster: ClusterOptions | None = None) -> AskedWindows | None:
    """What the options say (``cluster``: of that cluster), None without windows; raises ``InputError``."""
    given_ = ctx.meta.get(_KEY, {})
    if given_.get("window") is None and given_.get("configmap") is None:
        for key in ("window_cluster", "needs", "skip_outside", "force_window"):
            if given_.get(key) not in (None, False):
                flag = f"--{key.replace('_', '-')}"
                raise InputError("cannot be used without windows", where=flag, expected="--window or --configmap")
        return None
    from hitless.cli.window import given
    from hitless.operations.windows import length

    reason = given_.get("force_window")
    if reason is not None and not 0 < len(reason.strip()) <= _LONGEST:
        raise InputError("gives no reason", where="--force-window", expected=f"one of up to {_LONGEST} characters")
    needs = length(given_["needs"], where="--needs") if given_.get("needs") is not None else 0
    with_map = given_.get("configmap") is not None
    windows = given(
        given_.get("window"),
        given_.get("configmap"),
        cluster.kubeconfig if with_map and cluster is not None else None,
        cluster.context if with_map and cluster is not None else None,
        at=int(time.time()),
        flag="--window",
    )
    name: str | None = given_.get("window_cluster") or (cluster.context if cluster is not None else None)
    skips = bool(given_.get("skip_outside"))
    if skips and reason:
        raise InputError("contradicts --force-window", where="--skip-outside", expected="one of the two")
    return AskedWindows(windows, (name,) if name else (), needs, reason or "", skips)


def skipped(why: str) -> NoReturn:
    """End with 0 outside of a window: a schedule starts the command every hour, and most hours are outside."""
    click.echo(f"hitless: nothing is done: {clean(why)}", err=True)
    raise click.exceptions.Exit(0)


def configmap() -> str:
    """The ConfigMap of windows that the command was given; empty where there is none."""
    context = click.get_current_context(silent=True)
    return str((context.meta.get(_KEY, {}) if context is not None else {}).get("configmap") or "")


def permit(
    ctx: click.Context, nodes: Sequence[str], *, cluster: ClusterOptions | None = None, labels: Labels | None = None
) -> Permit:
    """What the options allow on these nodes (``cluster``: of that cluster). Raises ``MissingError`` when nothing may
    begin now."""
    given_ = asked(ctx, cluster=cluster)
    if given_ is None:
        return Permit()
    first = given_.gate(nodes, needs=given_.needs, labels=labels)
    against = first.refusal()
    if given_.reason:
        outside = against or "a window is open"
        return Permit(
            config={**given_.config, "forced": given_.reason},
            warning=f"--force-window: {clean(given_.reason)} ({clean(outside)})",
        )
    if against and given_.skips and not getattr(cluster, "dry_run", False):
        skipped(against)
    if against:
        raise MissingError(
            f"not now: {clean(against)}",
            remedy="nothing was touched; wait for it with hitless window wait, or give --force-window REASON",
        )
    return Permit(given_.gate(nodes, labels=labels).refusal, {**given_.config, "window": first.name})
