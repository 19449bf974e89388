"""``hitless version``: the version, and what a bug report needs beside it."""

from __future__ import annotations

import json
import os
import platform

import click

from hitless import __version__
from hitless.cli.exits import Exit
from hitless.cli.sections import Sections

__all__ = ["command"]


@click.command(
    "version",
    cls=Sections,
    help="Print the version of hitless, Python and the kernel.",
    examples={"hitless version --json": "for scripts; hitless --version prints hitless's alone"},
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(as_json: bool) -> int:
    found = {"hitless": __version__, "python": platform.python_version(), "kernel": os.uname().release}
    click.echo(json.dumps(found) if as_json else "\n".join(f"{name} {value}" for name, value in found.items()))
    return Exit.PASS
