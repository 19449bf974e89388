"""A command whose help groups its options under headings and ends with examples.

Problem: forty options in one list are hard to read, and a table of two columns has no room on a narrow terminal.
Promise: ``--help`` shows options under headings, and what no heading names under the last one, so that no option is
hidden; every command ends with examples that can be copied; below 76 columns a description is printed
below its option. Parsing is click's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

__all__ = ["Sections", "write_rows"]

_NARROW = 76
"""Columns below which there is no room for two of them."""


def write_rows(formatter: click.HelpFormatter, rows: Sequence[tuple[str, str]], *, column: int = 28) -> None:
    """Names and descriptions: side by side, or on a narrow terminal one above the other."""
    formatter.write_dl(rows, col_max=column if formatter.width >= _NARROW else 4)


class Sections(click.Command):
    """``sections``: headings, and the parameters below each, by name or flag; the last one takes what is left.
    ``examples``: commands, and what each is for."""

    def __init__(
        self,
        *args: Any,
        sections: Mapping[str, Sequence[str]] | None = None,
        examples: Mapping[str, str] | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(*args, **rest)
        self._sections = sections or {"Options": ()}
        self.examples = examples or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the headings with their options."""
        place = {name: title for title, names in self._sections.items() for name in names}
        last = list(self._sections)[-1]
        found: dict[str, list[tuple[str, str]]] = {title: [] for title in self._sections}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and record[1]:  # arguments stand in the usage
                title = place.get(parameter.name or "") or place.get(parameter.opts[-1], last)
                found[title].append(record)
        for title, records in found.items():
            if records:
                with formatter.section(title):
                    write_rows(formatter, records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then the epilog."""
        if self.examples:
            with formatter.section("Examples"):
                for command, what in self.examples.items():
                    for line in _folded(command, formatter.width - formatter.current_indent):
                        formatter.write(f"{'':{formatter.current_indent}}{line}\n")
                    _wrapped(formatter, what, formatter.current_indent + 4)
        if self.epilog:
            formatter.write_paragraph()
            _wrapped(formatter, self.epilog, 0)


def _wrapped(formatter: click.HelpFormatter, text: str, indent: int) -> None:
    lead = " " * indent
    formatter.write(f"{click.wrap_text(text, formatter.width, lead, lead)}\n")


def _folded(command: str, width: int) -> list[str]:
    """A command in lines that a shell takes together, broken in front of an option."""
    lines, line = [], ""
    pieces = " ".join(command.split()).replace(" --", "\n--").replace("\n-- ", " -- ").split("\n")
    for piece in pieces:
        if line and len(f"{line} {piece}") > width - 2:
            lines.append(f"{line} \\")
            line = f"    {piece}"
        else:
            line = f"{line} {piece}" if line else piece
    return [*lines, line]
