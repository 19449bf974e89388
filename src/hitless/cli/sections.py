"""A command whose options stand in the help by what they are about.

Problem: forty options in one list are read by nobody. Promise: ``--help`` shows them under headings; an option that no
heading names stands under the last one, so that none is ever hidden. Parsing is click's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

__all__ = ["Sections"]


class Sections(click.Command):
    """``sections``: headings, and the parameters below each, by name or flag; the last one takes what is left."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the headings with their options."""
        place = {name: title for title, names in self._sections.items() for name in names}
        last = list(self._sections)[-1]
        found: dict[str, list[tuple[str, str]]] = {title: [] for title in self._sections}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = place.get(parameter.name or "") or place.get(parameter.opts[-1], last)
                found[title].append(record)
        for title, records in found.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
