"""The options that keep a drill inside of maintenance windows, and what follows from them.

Promise: with ``--window`` or ``--configmap`` nothing begins outside of a window, unless ``--force-window`` gives a
reason, which is recorded in the log's header and in every report. What ``--needs`` asks for counts for the beginning;
later rounds begin as long as the window is open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from hitless.cleaning import clean
from hitless.cli.drill_choices import Choices
from hitless.drill.permits import Permit
from hitless.errors import InputError, MissingError

__all__ = ["options", "permit"]

_F = TypeVar("_F", bound=Callable[..., Any])
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
            _option("--force-window", metavar="REASON", help="Also outside of them; the reason is recorded."),
        )
    ):
        command = option(command)
    return command


def _option(*names: str, **rest: Any) -> Callable[[_F], _F]:
    return click.option(*names, expose_value=False, callback=_keep, **rest)


def permit(ctx: click.Context, nodes: Sequence[str], *, way: Choices | None = None) -> Permit:
    """What the options allow on these nodes (``way``: of that cluster). Raises ``MissingError`` when nothing may begin
    now."""
    asked = ctx.meta.get(_KEY, {})
    if asked.get("window") is None and asked.get("configmap") is None:
        for key in ("window_cluster", "needs", "force_window"):
            if asked.get(key) is not None:
                flag = f"--{key.replace('_', '-')}"
                raise InputError("means nothing without windows", where=flag, expected="--window or --configmap")
        return Permit()
    from hitless.cli.window import given
    from hitless.operations.windows import Gate, length

    reason = asked.get("force_window")
    if reason is not None and not 0 < len(reason.strip()) <= _LONGEST:
        raise InputError("gives no reason", where="--force-window", expected=f"one of up to {_LONGEST} characters")
    needs = length(asked["needs"], where="--needs") if asked.get("needs") is not None else 0
    with_map = asked.get("configmap") is not None
    windows = given(
        asked.get("window"),
        asked.get("configmap"),
        way.kubeconfig if with_map and way is not None else None,
        way.context if with_map and way is not None else None,
        at=int(time.time()),
        flag="--window",
    )
    name: str | None = asked.get("window_cluster") or (way.context if way is not None else None)
    clusters = (name,) if name else ()
    first = Gate(windows, clusters=clusters, nodes=nodes, needs=needs)
    config = {"windows": windows.source, "windows_sha256": windows.sha256}
    against = first.refusal()
    if reason is not None:
        outside = against or "a window is open"
        return Permit(
            config={**config, "forced": reason}, warning=f"--force-window: {clean(reason)} ({clean(outside)})"
        )
    if against:
        raise MissingError(
            f"not now: {clean(against)}",
            remedy="nothing was touched; wait for it with hitless window wait, or give --force-window REASON",
        )
    return Permit(Gate(windows, clusters=clusters, nodes=nodes).refusal, {**config, "window": first.name})
