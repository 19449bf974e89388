"""``hitless drill --cleanup``: list what drills left in a cluster, and remove it after confirmation.

Problem: a drill that was killed leaves pods behind, and another user's drill may be running beside them. Promise:
everything is listed first, by drill. Drills that are running, or may be running, are left alone unless ``--force`` is
given. Nothing is removed without confirmation (``--yes``); ``--dry-run`` only lists.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hitless.cluster.validation import check_places
from hitless.errors import InputError

if TYPE_CHECKING:
    from hitless.cluster.choices import Choices
    from hitless.cluster.leftovers import Drill

__all__ = ["cleanup"]

_SIGNS = {"alive": "alive", "dead": "dead", "unknown": "cannot tell whether it is alive"}


def cleanup(choices: Choices, places: Sequence[str], *, as_object: bool) -> None:
    """List, ask, remove; raises ``InputError`` if there is no terminal to ask on."""
    check_places(choices)
    drills = asyncio.run(_find(choices, places))
    doomed = [one for one in drills if one.life == "dead" or choices.force]
    spared = [one for one in drills if one not in doomed]
    _say(_listed(drills) if drills else ["nothing was left"], as_object=as_object)
    if spared:
        _say([_left_alone(one) for one in spared], as_object=as_object)
    removed: list[str] = []
    if doomed and not choices.dry_run and _agreed(doomed, yes=choices.yes):
        removed = asyncio.run(_remove(choices, doomed))
        _say([f"removed {one}" for one in removed], as_object=as_object)
    elif drills:
        _say(["dry run: nothing was removed" if choices.dry_run else "nothing was removed"], as_object=as_object)
    if as_object:
        result = {
            "dry_run": choices.dry_run,
            "drills": [_described(one, doomed=one in doomed) for one in drills],
            "removed": removed,
        }
        click.echo(json.dumps(result, indent=2))


def _say(lines: Sequence[str], *, as_object: bool) -> None:
    click.echo("\n".join(lines), err=as_object)


async def _find(choices: Choices, places: Sequence[str]) -> list[Drill]:
    from hitless.cluster import heartbeat, leftovers
    from hitless.kube.api import Patience, connect

    async with connect(choices.kubeconfig, choices.context, patience=Patience(total=20.0)) as api:
        found = await leftovers.list_drills(api, places)
        if waits := [one.identity for one in found if one.life == "unknown"]:
            within = heartbeat.GLANCE if choices.force else heartbeat.LOOK
            click.echo(f"looking for up to {within:g} s whether drill {', '.join(waits)} is alive …", err=True)
            if not choices.force:
                click.echo(
                    "(a drill may be cut off from the server for minutes, by the restart that it made)", err=True
                )
            found = await leftovers.judge(api, found, within)
        return found


async def _remove(choices: Choices, drills: Sequence[Drill]) -> list[str]:
    from hitless.cluster import leftovers
    from hitless.kube.api import Patience, connect

    async with connect(choices.kubeconfig, choices.context, patience=Patience(total=20.0), answered=True) as api:
        return [line for one in drills for line in await leftovers.remove(api, one)]


def _listed(drills: Sequence[Drill]) -> list[str]:
    lines = []
    for one in drills:
        by = f", by {one.driver}" if one.driver else ""
        on = f", on {', '.join(one.nodes)}" if one.nodes else ""
        lines.append(f"drill {one.identity or '(without a name)'}: {_SIGNS[one.life]} ({one.why}){by}{on}")
        lines += [f"  {name}" for name in one.objects]
    return lines


def _left_alone(one: Drill) -> str:
    what = "is at work" if one.life == "alive" else "may be at work"
    return f"drill {one.identity} {what} and is left alone; --force would end it"


def _described(one: Drill, *, doomed: bool) -> dict[str, object]:
    return {
        "drill": one.identity,
        "state": one.life,
        "why": one.why,
        "driver": one.driver,
        "nodes": list(one.nodes),
        "objects": list(one.objects),
        "to_be_removed": doomed,
    }


def _agreed(drills: Sequence[Drill], *, yes: bool) -> bool:
    count = sum(len(one.objects) for one in drills)
    names = ", ".join(one.identity for one in drills)
    alive = [one.identity for one in drills if one.life != "dead"]
    warning = f", and end what {', '.join(alive)} may be measuring now" if alive else ""
    question = f"Remove {count} objects of drill {names}{warning}?"
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError(
            "cannot ask for confirmation without a terminal",
            where="--yes",
            expected=f"--yes, which answers yes to: {question}",
        )
    return click.confirm(question, err=True)
