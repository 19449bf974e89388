"""The command line as it was typed, for the record, without its secrets."""

from __future__ import annotations

import shlex

import click

__all__ = ["typed"]


def typed(ctx: click.Context) -> str:
    """``hitless drill --rounds 3``, quoted as for a shell."""
    arguments = ctx.find_root().obj
    return shlex.join(["hitless", *arguments]) if isinstance(arguments, tuple) else ctx.command_path
