"""Reading foreign JSON and YAML with bounds on size and depth, and one kind of error.

Problem: a decoder gets pages of web servers, megabytes of brackets and aliases that multiply, and each library has
errors of its own for them, some of which are not ``ValueError`` (RecursionError, OverflowError). Promise: ``from_json``
and ``from_yaml`` return plain values or raise ``ValueError``, in bounded time and memory; results are not deeper than
``DEPTH``, so that they can be traversed and written again. Pure. Next stage: the code that knows the document's
structure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import yaml

__all__ = ["DEPTH", "DocumentTooLarge", "decoded", "from_json", "from_yaml", "shallow"]

DEPTH = 64
"""How deep lists and objects may nest. Kubernetes' objects and flannel's files have less than 20."""

_MOST_JSON = 8 << 20  # bytes
_MOST_YAML = 1 << 20  # bytes: the YAML library takes 10 s for them
_MOST_VALUES = 200_000  # of a YAML document, each alias counted as what it stands for

_T = TypeVar("_T")


class DocumentTooLarge(ValueError):
    """The document exceeds a bound; the message quotes nothing of it, because it may contain secrets."""


def decoded(decode: Callable[[], _T]) -> _T:
    """The result of ``decode``; every error that a decoder raises for wrong input is raised as ``ValueError``."""
    try:
        return decode()
    except RecursionError as error:
        raise DocumentTooLarge("lists or objects nest too deep") from error
    except (OverflowError, MemoryError) as error:
        raise DocumentTooLarge(f"a value is too large ({type(error).__name__})") from error


def from_json(data: bytes | str, *, most: int = _MOST_JSON) -> Any:
    """The values of a JSON document. Raises ``ValueError``."""
    if len(data) > most:
        raise DocumentTooLarge(f"it is longer than {most} bytes")
    value = decoded(lambda: json.loads(data))
    if not _flat(data) and not shallow(value):
        raise DocumentTooLarge("lists or objects nest too deep")
    return value


def _flat(data: bytes | str) -> bool:
    """Whether there are too few brackets to nest deep, as in all small documents."""
    if isinstance(data, bytes):
        return data.count(b"[") + data.count(b"{") <= DEPTH
    return data.count("[") + data.count("{") <= DEPTH


def shallow(value: object, depth: int = DEPTH) -> bool:
    """Whether lists and objects nest at most ``depth`` deep."""
    level: list[object] = [value]
    for _ in range(depth + 1):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return True
    return False


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def from_yaml(text: str, *, most: int = _MOST_YAML) -> Any:
    """The values of a YAML document. Raises ``ValueError``, and ``yaml.YAMLError`` with its place in the text."""
    import yaml

    if len(text) > most:
        raise DocumentTooLarge(f"it is longer than {most} bytes")
    value = decoded(lambda: yaml.load(text, _bounded_loader()))
    if _counted(value, {}, ()) > _MOST_VALUES:
        raise DocumentTooLarge(f"its aliases stand for more than {_MOST_VALUES} values")
    return value


def _bounded_loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Merge keys (``<<``) copy what they name, each time: bounded while it is done."""

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            super().flatten_mapping(node)
            if len(node.value) > _MOST_VALUES // 10:
                raise DocumentTooLarge("its merge keys stand for too many values")

    return Loader


def _counted(value: object, known: dict[int, int], path: tuple[int, ...]) -> int:
    """How many values a document has, with aliases expanded."""
    if not isinstance(value, dict | list | tuple):
        return 1
    if id(value) in path:
        raise DocumentTooLarge("a list or an object holds itself")
    if len(path) > DEPTH:
        raise DocumentTooLarge("lists or objects nest too deep")
    if id(value) not in known:
        known[id(value)] = 1 + sum(_counted(inner, known, (*path, id(value))) for inner in _inner(value))
    return known[id(value)]
