"""Advice as text.

Problem: an operator reads one screen and must know what it costs, whether to upgrade, and what to type. Promise: it
fits the terminal's width (80 columns where there is none, never more than 100); commands and manifests are printed
unchanged, on lines of their own, so that they can be copied; colours repeat what the text says, and are left out for
NO_COLOR and pipes. Decides nothing: that is ``hitless.advice.judgement``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from hitless.cleaning import clean

if TYPE_CHECKING:
    from hitless.advice.judgement import Advice

__all__ = ["text"]

_COLOURS = {"affected": "red", "window": "yellow", "unknown": "magenta"}
_LABELS = {"affected": "AFFECTED", "window": "SMALL WINDOW", "unknown": "UNKNOWN"}
_KNOWN = {"running": ", running now", "given": ", as given", "at-least": " or later"}
_WIDEST = 100  # longer lines are hard to read
_NARROWEST = 40


def text(answers: list[Advice], notes: list[str], width: int) -> str:
    """All advice, then the notes; what is the same as before is not repeated."""
    room = max(_NARROWEST, min(width, _WIDEST))
    parts: list[str] = []
    for number, one in enumerate(answers):
        lines = [*_head(one, room), *_restart(one, answers[:number], room), *_upgrade(one, room)]
        parts.append("\n".join([*lines, *_help(one, answers[:number], room)]))
    parts += ["\n".join(_wrap(f"Note: {clean(note)}", "", room)) for note in notes]
    return "\n\n".join(parts)


def _head(answer: Advice, room: int) -> Iterator[str]:
    yield f"{clean(answer.subject)}  {click.style(_LABELS[answer.status], fg=_COLOURS[answer.status], bold=True)}"
    if answer.nodes:
        yield from _wrap(
            f"{'node' if len(answer.nodes) == 1 else 'nodes'} {', '.join(map(clean, answer.nodes))}", "  ", room
        )
    yield from _wrap(_sentence(answer.summary), "  ", room)
    if answer.flannel:
        known = f"flannel {answer.flannel}{_KNOWN.get(answer.certainty, '')}"
        yield from _wrap(f"{known}; source: {clean(answer.source)}" if answer.source else known, "  ", room)


def _restart(answer: Advice, before: list[Advice], room: int) -> Iterator[str]:
    if not answer.findings:
        return
    yield from _heading("On a restart")
    if same := next((one.subject for one in before if one.findings == answer.findings), ""):
        yield f"  As with {clean(same)}."
        return
    for number, finding in enumerate(answer.findings, 1):
        yield from _title(number, finding.title, room)
        yield from _wrap(finding.cost, "     cost  ", room)
        yield from _wrap(finding.why, "     why   ", room)
        for at, issue in enumerate(finding.issues):
            yield f"     {'     ' if at else 'see  '} {issue}"


def _help(answer: Advice, before: list[Advice], room: int) -> Iterator[str]:
    yield from _heading("What helps until then" if answer.upgrade.state == "available" else "What helps")
    if same := next((one.subject for one in before if one.remedies == answer.remedies), ""):
        yield f"  As with {clean(same)}."
        return
    for number, remedy in enumerate(answer.remedies, 1):
        yield from _title(number, remedy.title, room)
        yield from _wrap(_sentence(remedy.text), "     ", room)
        yield from (f"       {line}" for line in remedy.snippet.splitlines())


def _heading(title: str) -> list[str]:
    return ["", click.style(title, bold=True)]


def _title(number: int, title: str, room: int) -> list[str]:
    apart = [""] if number > 1 else []
    return apart + [click.style(line, bold=True) for line in _wrap(_begun(title), f"  {number}. ", room)]


def _begun(text: str) -> str:
    """With a capital, unless it begins with a name."""
    first = text.split(" ", 1)[0]
    return text[0].upper() + text[1:] if first.isalpha() and first.islower() and first != "flannel" else text


def _sentence(text: str) -> str:
    return f"{_begun(text).removesuffix('.')}."


def _wrap(text: str, lead: str, room: int) -> list[str]:
    """Lines that keep a number and its unit together; a URL or an option is never cut."""
    held = re.sub(r"(?<=\d) (?=(?:ms|s)\b)", "\0", text)
    rest = " " * len(lead)
    wrapper = textwrap.TextWrapper(room, initial_indent=lead, subsequent_indent=rest, break_long_words=False)
    wrapper.break_on_hyphens = False
    return [line.replace("\0", " ") for line in wrapper.wrap(held)]


def _upgrade(answer: Advice, room: int) -> list[str]:
    return [*_heading("Upgrade"), *_wrap(_sentence(_when(answer)), "  ", room)]


def _when(answer: Advice) -> str:
    one = answer.upgrade
    match one.state:
        case "here":
            return f"this release keeps the rules at exit{f'; {one.text}' if one.text else ''}"
        case "available" | "none" | "not-known":
            return one.text
        case "unknown":
            return f"cannot tell{f': {one.text}' if one.text else ''}"
