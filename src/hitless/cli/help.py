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
@click.argument("words", metavar="[COMMAND]…", nargs=-1)
@click.pass_context
def command(ctx: click.Context, words: tuple[str, ...]) -> int:
    if words and words[0] in DAEMONS:
        return int(importlib.import_module(f"hitless.cli.{words[0]}").main(["--help"]))
    context = ctx.find_root()
    for word in words:
        group = context.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"{context.command_path} has no commands of its own", ctx)
        found = group.get_command(context, word)
        if found is None:
            raise click.UsageError(f"No such command '{word}'.", context)
        context = click.Context(found, parent=context, info_name=word)
    click.echo(context.get_help())
    return 0
