"""Versions of releases and of flannel: parsing and order.

Problem: ``v1.30.14+rke2r2`` comes after ``v1.30.14+rke2r1`` and before ``v1.31.0+rke2r1``, and a flannel image is
tagged ``v0.27.1-build20250710``; users have versions inside longer texts (``rke2 --version``, ``kubectl get nodes``).
Promise: ``parse_*`` accept exactly one version, or refuse the text with what was expected; ``find_*`` take a text and
return the versions in it, release candidates and development builds as ``Build``; the order is that of the releases.
What a version contains is in ``releases``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hitless.errors import InputError

__all__ = ["Build", "Flannel", "Product", "Release", "find_flannel", "find_releases", "parse_flannel", "parse_release"]

Product = Literal["rke2", "k3s"]

_TOKEN = re.compile(r"(?<![0-9A-Za-z_.+])v?\d{1,3}\.\d{1,3}\.\d{1,3}[0-9A-Za-z.+~-]*(?![0-9A-Za-z_])", re.ASCII)
_PLATFORM = re.compile(r"-(?:linux|windows)?-?(?:amd64|arm64|arm|s390x|ppc64le|riscv64)$")
_PRE = r"(?:[-.](?:alpha|beta|rc)[-.]?\d{0,3})"
_BUILD = re.compile(
    rf"v?(\d{{1,3}})\.(\d{{1,3}})\.(\d{{1,3}}){_PRE}?"
    rf"(?:[+-](?:dev|dirty|(rke2|k3s))(?:-?r?\d{{1,3}}(?![0-9a-f]))?{_PRE}?(?:[-.+](?:dirty|dev|[0-9a-f]{{6,40}}))*)?",
    re.ASCII,
)
_KUBERNETES = re.compile(r"v1\.\d{2}\.\d{1,3}(?:[-+](?:eks|gke|aks|vmware)[-.0-9A-Za-z]*)?", re.ASCII)
_MOST = 1_000  # releases that one text may name: a cluster has few

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


@dataclass(frozen=True, slots=True)
class Build:
    """A release candidate or a build between releases: no table knows its contents.

    ``product`` is None where the text does not show whether it is RKE2's or K3s'.
    """

    text: str
    product: Product | None
    major: int
    minor: int
    patch: int

    @property
    def line(self) -> str:
        """The minor line that it belongs to, e.g. ``1.32``."""
        return f"{self.major}.{self.minor}"

    def __str__(self) -> str:
        return self.text


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
    """The release in ``text``, also as in image tags (``v1.32.5-rke2r1``); raises ``InputError``."""
    match = _RELEASE.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"{text[:80]!r} is not a release of RKE2 or K3s",
            where=where,
            expected="e.g. v1.32.5+rke2r1 or v1.32.5+k3s1",
        )
    major, minor, patch, product, revision = match.groups()
    return Release("rke2" if product == "rke2" else "k3s", int(major), int(minor), int(patch), int(revision))


def parse_flannel(text: str, *, where: str = "--flannel") -> Flannel:
    """The flannel version in ``text`` (a tag or an image); raises ``InputError``."""
    tag = text.strip().split("@", 1)[0].rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    match = _FLANNEL.fullmatch(tag)
    if match is None:
        raise InputError(
            f"{text[:80]!r} names no flannel version", where=where, expected="e.g. v0.26.7 or v0.26.7-build20250515"
        )
    major, minor, patch, build = match.groups()
    return Flannel(int(major), int(minor), int(patch), build or "")


def find_releases(text: str, *, where: str = "--version") -> list[Release | Build]:
    """Every release of RKE2 or K3s in ``text``, in order, each once; raises ``InputError`` if there is none.

    In the output of ``kubectl version``, the server's version counts and the client's does not.
    """
    text = text.replace("%2B", "+").replace("%2b", "+")
    found: dict[Release | Build, None] = {}
    kubernetes = ""
    for line in _of_the_server(text.splitlines()):
        product = re.search(r"(?<![a-z0-9])(rke2|k3s)(?![a-z0-9])", line, re.IGNORECASE)
        for token in _TOKEN.findall(line):
            one = _release(token.rstrip(".-"), product.group(1).lower() if product else "")
            if one is not None and (token == text.strip() or _is_kubernetes(one, token)):
                found[one] = None
            elif _KUBERNETES.fullmatch(token):
                kubernetes = kubernetes or token
        if len(found) > _MOST:
            raise InputError(
                f"it names more than {_MOST} releases", where=where, expected="the versions of one cluster"
            )
    if found:
        return list(found)
    expected = "e.g. v1.32.5+rke2r1 or v1.32.5+k3s1, or a text with one in it, such as what 'rke2 --version' prints"
    shown = " ".join(text.split())[:80]
    if kubernetes:
        raise InputError(
            f"{shown!r} names Kubernetes {kubernetes}, which does not show which flannel runs",
            where=where,
            expected=f"{expected}; for other distributions give --flannel VERSION, or --cluster",
        )
    says = "names no" if " " in shown else "is not a"
    raise InputError(f"{shown!r} {says} release of RKE2 or K3s", where=where, expected=expected)


def _is_kubernetes(one: Release | Build, token: str) -> bool:
    """Whether it is not containerd's (``containerd://1.7.20-k3s1``) or another program's tag beside it."""
    return "+" in token or (one.major == 1 and one.minor >= 14)


def _of_the_server(lines: list[str]) -> list[str]:
    """Without the client's lines, if there are lines of the server."""
    marks = [re.sub(r"[^a-z]", "", line.lower())[:13] for line in lines]
    if "serverversion" not in marks:
        return lines
    kept: list[str] = []
    inside = ""  # the part that a line belongs to: the JSON and YAML forms have several lines a part
    for line, mark in zip(lines, marks, strict=True):
        if mark in ("clientversion", "serverversion") or mark.startswith("kustomize"):
            inside = mark
        if inside == "serverversion":
            kept.append(line)
    return kept


def _release(token: str, product: str) -> Release | Build | None:
    whole = _RELEASE.fullmatch(token) or _RELEASE.fullmatch(_PLATFORM.sub("", token))
    if whole is not None:
        major, minor, patch, name, revision = whole.groups()
        return Release("rke2" if name == "rke2" else "k3s", int(major), int(minor), int(patch), int(revision))
    build = _BUILD.fullmatch(_PLATFORM.sub("", token))
    if build is None:
        return None
    major, minor, patch, name = build.groups()
    name = name or product
    if re.fullmatch(r"v?[\d.]+", token) or (not name and "dev" not in token):
        return None  # Kubernetes' own version, or its own release candidate
    known: Product | None = "rke2" if name == "rke2" else "k3s" if name == "k3s" else None
    return Build(token, known, int(major), int(minor), int(patch))


def find_flannel(text: str, *, where: str = "--flannel") -> Flannel:
    """The flannel version in ``text``: a version, an image, or a longer text with one in it.

    Raises ``InputError`` when there is none, or several.
    """
    parts = text.split()
    if len(parts) <= 1:
        return parse_flannel(text, where=where)
    found: dict[Flannel, bool] = {}
    for part in parts:
        plain = part.strip("\"',;()[]{}")
        if "cni" in plain:
            continue  # flannel's CNI plugin has versions of its own
        try:
            found[parse_flannel(plain, where=where)] = "flannel" in plain
        except InputError:
            continue
    named = [one for one, by_image in found.items() if by_image] or list(found)
    if len(named) != 1:
        names = ", ".join(str(one) for one in named[:5])
        what = f"names several versions: {names}" if named else f"{' '.join(parts)[:80]!r} names no flannel version"
        raise InputError(what, where=where, expected="one, e.g. v0.26.7 or v0.26.7-build20250515")
    return named[0]
