"""The click side of the command line: the group, lazy loading, and one place where errors become exit codes."""

from __future__ import annotations

import errno
import importlib
import traceback
from collections.abc import Sequence
from typing import Any

import click

from hitless import __version__
from hitless.cleaning import clean
from hitless.cli.commands import COMMANDS, DAEMONS
from hitless.cli.exits import HELP, Exit
from hitless.errors import HitlessError

__all__ = ["run_tools"]

_LONGEST = 4000  # characters of an error: some quote a program's own


class _Tools(click.Group):
    """Commands by name; a command's module is imported when it is used, and its help line without importing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *DAEMONS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"hitless.cli.{cmd_name.replace('-', '_')}")
            command: click.Command = module.command
            return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items(), *DAEMONS.items()])


@click.group(
    cls=_Tools,
    name="hitless",
    help="Restart a Kubernetes node's network agent without a pod losing a connection, and prove it.\n\n" + HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", prog_name="hitless")
def tools() -> None:
    pass


def _show(error: click.ClickException) -> None:
    """As click's own ``show``; but an error quotes what was given, which may be anything."""
    context: click.Context | None = getattr(error, "ctx", None)
    if context is not None:
        click.echo(context.get_usage(), err=True)
        click.echo(f"Try '{context.command_path} {context.help_option_names[0]}' for help.\n", err=True)
    click.echo(f"Error: {clean(error.format_message())}", err=True)


def run_tools(arguments: Sequence[str]) -> int:
    """Run a tool and return its exit code; wrong usage and every ``HitlessError`` is exit 3 with one message."""
    try:
        result: Any = tools.main(args=list(arguments), prog_name="hitless", standalone_mode=False, obj=tuple(arguments))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return Exit.PASS
    except click.ClickException as error:
        _show(error)
        return Exit.ERROR
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    except (SystemExit, BrokenPipeError):  # click turns the second into the first; nothing else in a tool exits
        return Exit.UNHEARD
    except HitlessError as error:
        click.echo(f"hitless: {clean(str(error), _LONGEST)}", err=True)
        return Exit.ERROR
    except Exception as error:  # noqa: BLE001 - the process's border: Python's exit code 1 would read as "fail"
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            click.echo(f"hitless: cannot write the output: {error.strerror}", err=True)
        elif isinstance(error, PermissionError) and error.filename is not None:
            click.echo(
                f"hitless: {clean(str(error.filename))}: {error.strerror}; "
                "name another place, or run it as a user who may",
                err=True,
            )
        else:
            traceback.print_exc()
            click.echo("hitless: this is a defect of hitless, and no verdict", err=True)
        return Exit.ERROR
    return int(result) if isinstance(result, int) else Exit.PASS
