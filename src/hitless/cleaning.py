r"""Making foreign text safe to display.

Problem: the names of processes, chains, nodes and agents are chosen by others. On a terminal their control characters
move the cursor, set the title and the clipboard; a line break forges a line of a report; characters that change the
writing direction hide text; XML with a control character is invalid. Promise: ``clean`` gives one line without any of
these, each shown as Python writes it (``\x1b``, ``\u202e``), and of bounded length; ``cleaned`` does so for every text
in a value; ``for_terminal`` keeps what the program's own drawing needs, and is applied to all of standard output and
error, so that nothing is forgotten; ``in_json`` uses JSON's own escapes, which change no value. Machines (JSON, the
event log, the journal) get unchanged values.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast

__all__ = ["LONGEST", "clean", "cleaned", "for_terminal", "in_json"]

LONGEST = 1000
"""Characters of one text; names are far shorter, and a reason of a verdict is a sentence."""

# C0, DEL, C1; what turns or hides writing (bidi marks, embeddings, isolates, separators, invisible operators, byte
# order mark, interlinear marks, tags); halves of characters, which stand for bytes that are no UTF-8; non-characters
_UNFIT = (
    "\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_LINE = re.compile(f"[{_UNFIT}]")
# what click and rich draw with: colours, the cursor up, a line erased, the cursor hidden
_DRAWN = re.compile(
    rf"\x1b\[[0-9;]*[mAKJ]|\x1b\[\?25[lh]|[\t\n\r\udc80-\udcff]|([{_UNFIT}])"
)  # a file's name may be bytes: it is written as it is, so that it can be copied
_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}

_NO_TEXT = frozenset({int, float, bool, bytes, type(None)})

_T = TypeVar("_T")


def _spelt(one: str) -> str:
    number = ord(one)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not UTF-8, as Python keeps it (PEP 383)
        number -= 0xDC00
    if number > 0xFFFF:
        return f"\\U{number:08x}"
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}"


def clean(text: str, longest: int = LONGEST) -> str:
    """One line without control characters, of at most ``longest`` characters."""
    cut = text[: longest + 1]  # whatever comes behind it does not count, and costs nothing
    if _LINE.search(cut):
        cut = _LINE.sub(lambda found: _SHORT.get(found[0]) or _spelt(found[0]), cut)
    return cut if len(cut) <= longest else f"{cut[: longest - 1]}…"


def for_terminal(text: str) -> str:
    """Text on its way to a terminal, with line breaks and colours, and without any other control characters."""
    return _DRAWN.sub(lambda found: _spelt(found[1]) if found[1] else found[0], text)


def in_json(text: str) -> str:
    """A JSON document with the same values, without characters that act on a terminal (JSON itself only forbids C0)."""
    return _JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cleaned(value: _T) -> _T:
    """The value with every text in it clean, at any depth; the same object if nothing had to be changed."""
    return cast(_T, _cleaned(value))


def _cleaned(value: Any) -> Any:
    kind = type(value)
    if kind in _NO_TEXT:
        return value
    if kind is str:
        # printable text, in Python's sense, has none of these characters: this is the usual case
        return value if len(value) <= LONGEST and value.isprintable() else clean(value)
    if isinstance(value, list | tuple):
        items = [_cleaned(one) for one in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return kind(*items) if hasattr(value, "_fields") else kind(items)
    if isinstance(value, dict):
        pairs = [(_cleaned(key), _cleaned(one)) for key, one in value.items()]
        same = all(key is old and one is value[old] for (key, one), old in zip(pairs, value, strict=True))
        return value if same else dict(pairs)
    # msgspec's structs and dataclasses, without importing either: imports delay a daemon's start
    fields = getattr(kind, "__dataclass_fields__", {})
    names = getattr(kind, "__struct_fields__", None) or [name for name, each in fields.items() if each.init]
    values = {name: getattr(value, name) for name in names}
    changed = {name: new for name, old in values.items() if (new := _cleaned(old)) is not old}
    return kind(**values | changed) if changed else value
