"""The click side of the command line: the group, lazy loading, and one place where errors become exit codes."""

from __future__ import annotations

import errno
import importlib
import traceback
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from hitless import __version__
from hitless.cleaning import clean
from hitless.cli import error_messages
from hitless.cli.commands import COMMANDS, DAEMONS, GROUPS, HIDDEN
from hitless.cli.exits import HELP, Exit
from hitless.cli.sections import write_rows
from hitless.errors import HitlessError

__all__ = ["run_tools"]

_WIDTH = max(map(len, (*COMMANDS, *DAEMONS)))


class _Tools(click.Group):
    """Commands by name; a command's module is imported when it is used, and its help line without importing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in (*COMMANDS, *DAEMONS) if name not in HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"hitless.cli.{cmd_name.replace('-', '_')}")
            command: click.Command = module.command
            return command
        if cmd_name in DAEMONS and ctx.resilient_parsing:  # the shell asks for completions
            from hitless.cli.completion import daemon

            return daemon(cmd_name)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        texts = COMMANDS | DAEMONS
        for title, names in GROUPS.items():
            with formatter.section(title):
                write_rows(formatter, [(f"{name:{_WIDTH}}", texts[name]) for name in names], column=_WIDTH)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        texts = COMMANDS | DAEMONS
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [CompletionItem(name, help=texts[name]) for name in names] + click.Command.shell_complete(
            self, ctx, incomplete
        )


@click.group(
    cls=_Tools,
    name="hitless",
    help="Restart a Kubernetes node's network agent without a pod losing a connection, and prove it.\n\n"
    "Start with: hitless doctor (it only reads), then hitless drill.\n\n" + HELP,
    epilog="The help of a command: hitless COMMAND --help. Shell completion: docs/install.md.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", prog_name="hitless")
def tools() -> None:
    pass


def _named(arguments: Sequence[str]) -> str:
    """The command that the arguments name, for messages."""
    return next((one for one in arguments if one in COMMANDS), "")


def complain(text: str) -> None:
    """One message on standard error."""
    click.echo(f"hitless: {text}", err=True)


def run_tools(arguments: Sequence[str]) -> int:
    """Run a tool and return its exit code; wrong usage and every ``HitlessError`` is exit 3 with one message."""
    try:
        result: Any = tools.main(args=list(arguments), prog_name="hitless", standalone_mode=False, obj=tuple(arguments))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return Exit.PASS
    except click.ClickException as error:
        complain(error_messages.of_click(error, _named(arguments)))
        return Exit.ERROR
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    except (SystemExit, BrokenPipeError) as error:
        # click turns the second into the first; but for that only its answers to a shell exit
        return Exit.PASS if isinstance(error, SystemExit) and not error.code else Exit.UNHEARD
    except HitlessError as error:
        complain(error_messages.of_ours(error, _named(arguments)))
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
