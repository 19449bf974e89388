"""``hitless drill --cluster``: the dialogue at the terminal.

Problem: the same drill is run by users, scripts and schedules. Promise: confirmation is asked for only where somebody
can answer, and says what ``--yes`` would confirm; if a server does not answer at once, the wait is reported. What a
drill does is in ``hitless.cluster.preparation``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hitless.cleaning import clean
from hitless.cluster.choices import Choices
from hitless.drill import DrillPlan
from hitless.drill.permits import Permit
from hitless.errors import InputError

if TYPE_CHECKING:
    from hitless.cluster.preparation import Prepared
    from hitless.kube.api import Api
    from hitless.kube.contexts import Connection

__all__ = ["Allow", "place_of", "prepare", "waited_for"]

_T = TypeVar("_T")

_REPORT_AFTER = 1.0
"""Seconds after which a wait is reported."""

Allow = Callable[[Mapping[str, Mapping[str, str]], Choices], Permit]
"""Checks the maintenance windows of these nodes (their labels by name); raises if the drill may not begin."""


class _AtTerminal:
    """``hitless.cluster.preparation.Operator``."""

    def __init__(self, allow: Allow) -> None:
        self.allow = allow

    def warn(self, text: str) -> None:
        _warn(text)

    def show(self, text: str) -> None:
        click.echo(text)

    def agree(self, question: str) -> bool:
        if not sys.stdin.isatty():
            expected = f"--yes, which answers yes to: {question}"
            raise InputError("cannot ask for confirmation without a terminal", where="--yes", expected=expected)
        agreed = click.confirm(question, err=True)
        if not agreed:
            click.echo("nothing was changed", err=True)
        return agreed

    async def at_work(self, api: Api) -> list[str]:
        from hitless.cli import rollout_findings

        return await rollout_findings.under_way(api, _warn)

    def wait_for(self, work: Coroutine[Any, Any, _T], connection: Connection) -> _T:
        return asyncio.run(waited_for(work, place_of(connection)))

    def place_of(self, connection: Connection) -> str:
        return place_of(connection)


def prepare(choices: Choices, plan: DrillPlan, grace: float | None, allow: Allow) -> Prepared | None:
    """Inspect the cluster, check, ask; None after a dry run, or if the user declined."""
    from hitless.cluster import preparation

    return preparation.prepare(choices, plan, grace, _AtTerminal(allow))


def _warn(text: str) -> None:
    click.echo(f"hitless: {clean(text)}", err=True)


def place_of(connection: Connection) -> str:
    """The cluster for messages: its name, the context and the server."""
    named = f"cluster {connection.cluster_name} " if connection.cluster_name else "the cluster "
    context = f"context {connection.context}, " if connection.context else ""
    return clean(f"{named}({context}server {connection.cluster.server})")


async def waited_for(work: Coroutine[Any, Any, _T], place: str) -> _T:
    """Do the work; if it takes more than a second, report the server and the longest wait."""
    from hitless.cluster.preparation import ASKED

    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=_REPORT_AFTER)
    if not done:
        _warn(f"no answer yet from {place}; it is asked for up to {ASKED:g} s (Ctrl-C ends it, nothing was changed)")
    try:
        return await task
    finally:
        task.cancel()
