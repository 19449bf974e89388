"""The command as it was typed, for the record; what is secret in it is taken out before it is written."""

from __future__ import annotations

import shlex

import click

__all__ = ["typed"]


def typed(ctx: click.Context) -> str:
    """``hitless drill --rounds 3``, quoted as for a shell."""
    arguments = ctx.find_root().obj
    return shlex.join(["hitless", *arguments]) if isinstance(arguments, tuple) else ctx.command_path
