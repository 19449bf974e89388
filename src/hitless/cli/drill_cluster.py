"""``hitless drill --cluster``: who asked for a drill of a Kubernetes cluster, at a terminal.

Problem: the same drill is asked for by a person, a script and a schedule. Promise: a question is asked where somebody
can answer, and names what ``--yes`` would agree to; a server that does not answer at once is said to be waited for.
What a drill does is ``hitless.cluster.preparation``.
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

_WONDER = 1.0
"""Seconds after which it is said who is waited for."""

Allow = Callable[[Mapping[str, Mapping[str, str]], Choices], Permit]
"""Whether a drill of these nodes (their labels by name) may begin, by the windows; raises where it may not."""


class _AtTerminal:
    """``hitless.cluster.preparation.People``."""

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
        from hitless.cli import rollout_looks

        return await rollout_looks.under_way(api, _warn)

    def wait_for(self, work: Coroutine[Any, Any, _T], way: Connection) -> _T:
        return asyncio.run(waited_for(work, place_of(way)))

    def place_of(self, way: Connection) -> str:
        return place_of(way)


def prepare(choices: Choices, plan: DrillPlan, grace: float | None, allow: Allow) -> Prepared | None:
    """Look at the cluster, object, ask; None when only a dry run was asked for, or the answer was no."""
    from hitless.cluster import preparation

    return preparation.prepare(choices, plan, grace, _AtTerminal(allow))


def _warn(text: str) -> None:
    click.echo(f"hitless: {clean(text)}", err=True)


def place_of(way: Connection) -> str:
    """Which cluster is meant, for people: its name, the context and the server."""
    named = f"cluster {way.cluster_name} " if way.cluster_name else "the cluster "
    context = f"context {way.context}, " if way.context else ""
    return clean(f"{named}({context}server {way.cluster.server})")


async def waited_for(work: Coroutine[Any, Any, _T], place: str) -> _T:
    """The same; when nothing has come of it after a second, it is said who is waited for, and for how long."""
    from hitless.cluster.preparation import ASKED

    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=_WONDER)
    if not done:
        _warn(f"no answer yet from {place}; it is asked for up to {ASKED:g} s (Ctrl-C ends it, nothing was changed)")
    try:
        return await task
    finally:
        task.cancel()
