"""``hitless help [COMMAND]``: the same as ``hitless COMMAND --help``."""

from __future__ import annotations

import importlib

import click

from hitless.cli.commands import DAEMONS
from hitless.cli.sections import Sections

__all__ = ["command"]


@click.command(
    "help",
    cls=Sections,
    help="Show the help of a command, or of all.",
    examples={"hitless help drill": "all about drills", "hitless help lab up": "a command of a command"},
)
@click.argument("path", metavar="[COMMAND]…", nargs=-1)
@click.pass_context
def command(ctx: click.Context, path: tuple[str, ...]) -> int:
    if path and path[0] in DAEMONS:
        return int(importlib.import_module(f"hitless.cli.{path[0]}").main(["--help"]))
    context = ctx.find_root()
    for name in path:
        group = context.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"{context.command_path} has no commands of its own", ctx)
        found = group.get_command(context, name)
        if found is None:
            raise click.UsageError(f"No such command '{name}'.", context)
        context = click.Context(found, parent=context, info_name=name)
    click.echo(context.get_help())
    return 0
