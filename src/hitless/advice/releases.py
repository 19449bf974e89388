"""Which flannel a release of RKE2 or K3s ships: the packaged tables, and a user's own.

Problem: the table grows with every release, and an operator may know a release before this package does. Promise: a
table is a CSV file with the columns ``version,flannel,certainty,source``; a line that does not parse is refused with
file and line; nothing is interpolated between known releases. ``certainty`` is ``exact``, or ``at-least`` where only a
lower bound is known. How to add releases: docs/advise.md. Next stage: ``advice``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model.versions import Build, Flannel, Product, Release, parse_flannel, parse_release

__all__ = ["Ended", "ReleaseTable", "Shipped", "packaged", "read_table"]

Certainty = Literal["exact", "at-least"]

_COLUMNS = ("version", "flannel", "certainty", "source")


@dataclass(frozen=True, slots=True)
class Shipped:
    """A release and the flannel in it."""

    release: Release
    flannel: Flannel
    certainty: Certainty
    source: str

    @property
    def chart_build(self) -> int:
        """The build number of the rke2-canal chart in it (``2026072200``); 0 where the table does not say."""
        match = re.search(r"chart rke2-canal v[\d.]+-build(\d{8,12})", self.source)
        return int(match.group(1)) if match else 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A minor line that gets no more releases: Kubernetes' last day of support, and the last release if known."""

    date: str
    last: Release | None


@dataclass(frozen=True, slots=True)
class ReleaseTable:
    """Known releases, and the minor lines that get no more of them."""

    releases: Mapping[Release, Shipped]
    ended: Mapping[tuple[Product, str], Ended] = field(default_factory=dict)

    def find(self, release: Release) -> Shipped | None:
        """What is known of exactly this release."""
        return self.releases.get(release)

    def line(self, release: Release | Build) -> list[Shipped]:
        """The known releases of its minor line, oldest first; of both products for a build that is of neither."""
        products = (release.product,) if release.product else ("rke2", "k3s")
        same = (one for one in self.releases.values() if one.release.product in products)
        return sorted((one for one in same if one.release.line == release.line), key=lambda one: one.release)

    def end(self, release: Release | Build) -> Ended | None:
        """How its minor line ended; None while it gets releases, and for a build of an unknown product."""
        return self.ended.get((release.product, release.line)) if release.product else None

    def newest(self, product: Product) -> Shipped | None:
        """The newest known release of a product."""
        own = [one for one in self.releases.values() if one.release.product == product]
        return max(own, key=lambda one: one.release, default=None)

    def images(self) -> list[Flannel]:
        """Every hardened flannel image that a known RKE2 release ships, oldest first."""
        return sorted({one.flannel for one in self.releases.values() if one.release.product == "rke2"})

    def extended(self, more: Iterable[Shipped]) -> ReleaseTable:
        """This table with ``more`` releases, which win over what was known."""
        return ReleaseTable({**self.releases, **{one.release: one for one in more}}, self.ended)


def read_table(text: str, name: str) -> list[Shipped]:
    """The releases of a table; ``name`` is for messages. Raises ``InputError`` with file and line."""
    reader = csv.DictReader(io.StringIO(text))
    if reader.fieldnames is None or tuple(reader.fieldnames) != _COLUMNS:
        raise InputError(
            "this is not a table of releases", where=f"{name}:1", expected=f"the columns {','.join(_COLUMNS)}"
        )
    found: list[Shipped] = []
    for row in reader:
        where = f"{name}:{reader.line_num}"
        if None in row or None in row.values():
            raise InputError("wrong number of columns", where=where, expected=str(len(_COLUMNS)))
        certainty = row["certainty"]
        if certainty not in ("exact", "at-least"):
            raise InputError(f"certainty {certainty!r}", where=where, expected="exact or at-least")
        release = parse_release(row["version"], where=where)
        flannel = parse_flannel(row["flannel"], where=where)
        found.append(Shipped(release, flannel, "exact" if certainty == "exact" else "at-least", row["source"]))
    return found


def _packaged_text(name: str) -> str:
    return resources.files("hitless.advice").joinpath("data", name).read_text(encoding="utf-8")


@cache
def packaged() -> ReleaseTable:
    """The tables inside this package."""
    found = [one for name in ("rke2.csv", "k3s.csv") for one in read_table(_packaged_text(name), name)]
    ended: dict[tuple[Product, str], Ended] = {}
    for row in csv.DictReader(io.StringIO(_packaged_text("ended.csv"))):
        last = parse_release(row["last"], where="ended.csv") if row["last"] else None
        ended[("rke2" if row["product"] == "rke2" else "k3s", row["minor"])] = Ended(row["date"], last)
    return ReleaseTable({one.release: one for one in found}, ended)


def with_file(table: ReleaseTable, path: Path) -> ReleaseTable:
    """``table`` with the releases of a user's own file."""
    try:
        text = files.read(path).decode("utf-8-sig")  # spreadsheets write a mark before the first column
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"cannot be read: {why}", where=str(path), expected="a CSV file of releases") from error
    return table.extended(read_table(text, str(path)))
