"""Reads selectors of nodes by their labels. Pure.

Promise: a selector is KEY=VALUE or KEY, separated by commas, all of which a node must have; what is none is refused
with its place, never taken for one that fits every node. Next stage: ``reading``.
"""

from __future__ import annotations

import re

from hitless.errors import InputError
from hitless.model.reading import shown

__all__ = ["Selector", "labels_of", "selectors"]

Selector = tuple[tuple[str, str | None], ...]
"""Labels that a node must have; None: of any value."""

_MOST = 1000
_WORD = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PREFIX = r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?"
_TERM = re.compile(rf"({_PREFIX}{_WORD})(?:=({_WORD})?)?", re.ASCII)
_EXPECTED = '["pool=edge,topology.kubernetes.io/zone=a"]: labels that a node must have, KEY=VALUE or KEY'


def selectors(given: object, *, where: str) -> tuple[Selector, ...]:
    """A list of them, of which one is enough; raises ``InputError``."""
    if given is None:
        return ()
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not 0 < len(given) <= _MOST:
        raise InputError("is not a list of labels", where=where, expected=_EXPECTED)
    return tuple(_selector(one, where) for one in given)


def _selector(text: object, where: str) -> Selector:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{shown(str(text))} is not a label", where=where, expected=_EXPECTED)
    found: list[tuple[str, str | None]] = []
    for term in text.split(","):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise InputError(f"{shown(term)} is not a label", where=where, expected=_EXPECTED)
        found.append((match[1], (match[2] or "") if "=" in term else None))
    return tuple(found)


def labels_of(text: str, *, where: str) -> dict[str, str]:
    """The labels of one node, KEY=VALUE,…; raises ``InputError``."""
    return {key: value or "" for key, value in _selector(text, where)} if text else {}
