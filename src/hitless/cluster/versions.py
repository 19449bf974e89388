"""Versions of releases and of flannel: parsing and order.

Problem: ``v1.30.14+rke2r2`` comes after ``v1.30.14+rke2r1`` and before ``v1.31.0+rke2r1``, and a flannel image is
tagged ``v0.27.1-build20250710``. Promise: a text is parsed whole or refused with what was expected; order is the
order of release. It knows nothing of what a version contains: that is ``releases``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hitless.errors import InputError

__all__ = ["Flannel", "Product", "Release", "parse_flannel", "parse_release"]

Product = Literal["rke2", "k3s"]

_RELEASE = re.compile(r"v?(\d{1,3})\.(\d{1,3})\.(\d{1,3})[+-](rke2|k3s)-?r?(\d{1,3})", re.ASCII)
_FLANNEL = re.compile(r"v?(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:-([0-9A-Za-z][0-9A-Za-z.-]{0,60}))?", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """A release of RKE2 or K3s. Releases of different products compare by product first."""

    product: Product
    major: int
    minor: int
    patch: int
    revision: int

    @property
    def line(self) -> str:
        """The minor line that it belongs to, e.g. ``1.32``."""
        return f"{self.major}.{self.minor}"

    def __str__(self) -> str:
        mark = "r" if self.product == "rke2" else ""
        return f"v{self.major}.{self.minor}.{self.patch}+{self.product}{mark}{self.revision}"


@dataclass(frozen=True, slots=True, order=True)
class Flannel:
    """A version of flannel; ``build`` is the packager's suffix (``build20250710``), empty upstream."""

    major: int
    minor: int
    patch: int
    build: str = ""

    @property
    def number(self) -> tuple[int, int, int]:
        """The upstream number, which decides the behaviour."""
        return (self.major, self.minor, self.patch)

    def __str__(self) -> str:
        suffix = f"-{self.build}" if self.build else ""
        return f"v{self.major}.{self.minor}.{self.patch}{suffix}"


def parse_release(text: str, *, where: str = "--version") -> Release:
    """The release that ``text`` names, also as in image tags (``v1.32.5-rke2r1``); raises ``InputError``."""
    match = _RELEASE.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"{text[:80]!r} is no release of RKE2 or K3s", where=where, expected="e.g. v1.32.5+rke2r1 or v1.32.5+k3s1"
        )
    major, minor, patch, product, revision = match.groups()
    return Release("rke2" if product == "rke2" else "k3s", int(major), int(minor), int(patch), int(revision))


def parse_flannel(text: str, *, where: str = "--flannel") -> Flannel:
    """The flannel version that ``text`` (a tag or an image) names; raises ``InputError``."""
    tag = text.strip().split("@", 1)[0].rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    match = _FLANNEL.fullmatch(tag)
    if match is None:
        raise InputError(
            f"{text[:80]!r} names no flannel version", where=where, expected="e.g. v0.26.7 or v0.26.7-build20250515"
        )
    major, minor, patch, build = match.groups()
    return Flannel(int(major), int(minor), int(patch), build or "")
