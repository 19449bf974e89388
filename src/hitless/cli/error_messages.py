"""Errors of the command line in one form: ``hitless: WHERE: WHAT (expected …); REMEDY``.

Problem: click, argparse and our own errors each have their own form, and a usage text in front hides the error.
Promise: every error is one message on standard error with the option, argument or file, what is wrong with it, what
would be right (the nearest name, the choices), and what to do; never a traceback, never the usage. Imports click only
when one of its errors is to be shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hitless.cleaning import clean
from hitless.errors import HitlessError, InputError

if TYPE_CHECKING:
    import click

__all__ = ["LONGEST", "nearest", "of_argparse", "of_click", "of_ours"]

LONGEST = 4000  # characters of an error: some quote a program's output

_CHOICE = re.compile(r"(.*) is not one of .*", re.DOTALL)
_NO_COMMAND = re.compile(r"No such command '(.*)'\.", re.DOTALL)
_PLAIN = (
    (re.compile(r"(.*) is not a valid integer( range)?", re.DOTALL), r"\1 is not a whole number"),
    (re.compile(r"(.*) is not a valid float( range)?", re.DOTALL), r"\1 is not a number"),
    (re.compile(r"(.*) is not in the range (.*)", re.DOTALL), r"\1 is out of range"),
    (re.compile(r"(?:File|Directory|Path) (.*) does not exist", re.DOTALL), r"\1 is not there"),
    (re.compile(r"(?:File|Directory|Path) (.*) is a (file|directory)", re.DOTALL), r"\1 is a \2"),
)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that ``name`` may have been meant for, the likeliest first; three at most."""
    from difflib import get_close_matches

    names = list(known)
    bare = name.lstrip("-")
    begun = [one for one in names if len(bare) > 1 and one.lstrip("-").startswith(bare)]
    near = get_close_matches(name.lower().replace("_", "-"), names, n=3, cutoff=0.6)
    return list(dict.fromkeys([*near, *begun]))[:3]


def _perhaps(near: list[str]) -> str:
    return f" (expected perhaps {' or '.join(near)})" if near else ""


def of_ours(error: HitlessError, command: str) -> str:
    """One of our errors, completed where it does not say where, or what to do."""
    text = clean(str(error), LONGEST)
    if not isinstance(error, InputError):
        return text
    if error.where is None:
        text = f"{command}: {text}"
    if error.expected is None and error.remedy is None:
        text += f"; see: hitless {command} --help"
    return text


def of_click(error: click.ClickException, command: str = "") -> str:
    """One of click's errors in our form; ``command``: used where the error has none."""
    from click import exceptions as of

    context: click.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context is not None else f"hitless {command}".strip()
    here = path.partition(" ")[2] or "hitless"
    see = f"; see: {path} --help"
    match error:
        case of.NoSuchOption():
            known = [option for one in _parameters(context) for option in (*one.opts, *one.secondary_opts)]
            near = _perhaps(nearest(error.option_name, known))
            return f"{_shown(error.option_name)}: there is no such option{near}{see}"
        case of.MissingParameter() if error.param is not None:
            name = _name(error.param)
            help = getattr(error.param, "help", None) or ""
            metavar = error.param.make_metavar(context) if context is not None else name
            wanted = f"{name} {metavar}" if metavar != name else name
            return f"{name}: is missing (expected {wanted}{f': {_first(help)}' if help else ''}){see}"
        case of.BadParameter():
            return _bad_value(error, see)
        case of.BadOptionUsage():
            what = "takes no value" if "does not take" in error.message else "needs a value"
            return f"{_shown(error.option_name)}: {what}{see}"
        case of.FileError():
            return f"{_shown(error.ui_filename)}: cannot be opened: {_shown(error.message)}; name another file"
        case _ if found := _NO_COMMAND.fullmatch(error.message):  # a class of its own from click 8.4 on
            return f"{_shown(found[1])}: there is no such command{_perhaps(nearest(found[1], _commands(context)))}{see}"
        case _:
            return f"{here}: {_usage(error)}{see}"


def _usage(error: click.ClickException) -> str:
    text = error.format_message().rstrip(".")
    extra = re.fullmatch(r"Got unexpected extra arguments? \((.*)\)", text, re.DOTALL)
    if extra is not None:
        return f"{_shown(extra[1])} is too much"
    return "names no command" if text == "Missing command" else _shown(text[:1].lower() + text[1:])


def _bad_value(error: click.BadParameter, see: str) -> str:
    import click

    where = _name(error.param) if error.param is not None else str(error.param_hint or "")
    kind = getattr(error.param, "type", None)
    what, expected = error.message.rstrip("."), ""
    if isinstance(kind, click.Choice):
        found = _CHOICE.fullmatch(what)
        what = f"{found[1]} is none of the choices" if found else what
        expected = ", ".join(map(str, kind.choices))
    for form, plain in _PLAIN:
        if found := form.fullmatch(what):
            if "range" in form.pattern and found.re.groups == 2 and "x" in found[2]:
                expected = found[2].replace("<=x<=", " to ").replace("x>=", "at least ").replace("x<=", "at most ")
            what = form.sub(plain, what)
            break
    if isinstance(kind, click.Path) and what.endswith("is not there"):
        expected = "a folder that is there" if not kind.file_okay else "a file that is there"
    return f"{where}: {_shown(what)}{f' (expected {expected})' if expected else ''}{see}"


def of_argparse(command: str, message: str, known: Iterable[str]) -> str:
    """One of argparse's errors (Python 3.11 to 3.14) in our form."""
    see = f"; see: hitless {command} --help"
    if found := re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL):
        token = found[1].split(" ")[0]
        what = "there is no such option" if token.startswith("-") else "is too much"
        near = nearest(token.partition("=")[0], known) if token.startswith("-") else []
        return f"{_shown(token)}: {what}{_perhaps(near)}{see}"
    where, what = command, message
    if found := re.fullmatch(r"argument ([^:]+): (.*)", message, re.DOTALL):
        where, what = found[1].split("/")[-1], found[2]
        if not where.startswith("-"):
            where = command
    if found := re.fullmatch(r"invalid choice: (.*?) \(choose from (.*)\)", what, re.DOTALL):
        choices = found[2].replace("'", "")
        near = nearest(found[1].strip("'"), choices.split(", "))
        what = f"{_shown(found[1])} is none of the choices (expected {choices}{f'; perhaps {near[0]}' if near else ''})"
    elif what == "expected one argument":
        what = "needs a value"
    return f"{_shown(where)}: {_shown(what)}{see}"


def _parameters(context: click.Context | None) -> list[click.Parameter]:
    if context is None:
        return []
    commands = getattr(context.command, "commands", {})
    return [one for each in (context.command, *commands.values()) for one in each.get_params(context)]


def _commands(context: click.Context | None) -> list[str]:
    names = getattr(context.command, "list_commands", None) if context is not None else None
    return list(names(context)) if names is not None else []


def _name(parameter: click.Parameter) -> str:
    if parameter.param_type_name == "argument":
        return parameter.human_readable_name
    return next((option for option in parameter.opts if option.startswith("--")), parameter.opts[0])


def _first(text: str) -> str:
    """The first sentence of a help text, without its range and default."""
    return text.partition("  [")[0].partition(". ")[0].rstrip(".").lower()


def _shown(text: str) -> str:
    return clean(text, 400)
