r"""Text of strangers, made fit for people: the one door that it passes.

Problem: a process's name, a chain's, a node's or an agent's is chosen by somebody else. On a terminal its control
characters move the cursor, set the title and the clipboard; a line break in it forges a line of a report; characters
that turn the direction of writing hide what it says; XML with a control character is no XML. Promise: ``clean`` gives
one line without any of these, each shown as Python spells it (``\x1b``, ``\u202e``), and of bounded length; ``cleaned``
does so to every text in a value; ``for_terminal`` lets through what the program's own drawing needs and is put before
standard output and error whole, so that nothing is forgotten; ``in_json`` spells them in JSON's own way, which changes
no value. Machines (JSON, the event log, the journal) get values as they are.
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
    """One line that does nothing but stand there, of at most ``longest`` characters."""
    cut = text[: longest + 1]  # whatever comes behind it does not count, and costs nothing
    if _LINE.search(cut):
        cut = _LINE.sub(lambda found: _SHORT.get(found[0]) or _spelt(found[0]), cut)
    return cut if len(cut) <= longest else f"{cut[: longest - 1]}…"


def for_terminal(text: str) -> str:
    """Text as it is on its way to a terminal, with lines and colours, and without anything else that would act."""
    return _DRAWN.sub(lambda found: _spelt(found[1]) if found[1] else found[0], text)


def in_json(text: str) -> str:
    """A JSON document with the same values, in which nothing acts on a terminal (JSON itself asks for C0 only)."""
    return _JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cleaned(value: _T) -> _T:
    """The value with every text in it clean, however deep; the very same value where nothing had to be changed."""
    return cast(_T, _cleaned(value))


def _cleaned(value: Any) -> Any:
    kind = type(value)
    if kind in _NO_TEXT:
        return value
    if kind is str:
        # what Python calls printable has none of the characters in question: nearly every text ends here
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
    # msgspec's structs and dataclasses; neither is imported for this: a daemon's start pays for imports
    fields = getattr(kind, "__dataclass_fields__", {})
    names = getattr(kind, "__struct_fields__", None) or [name for name, each in fields.items() if each.init]
    values = {name: getattr(value, name) for name in names}
    changed = {name: new for name, old in values.items() if (new := _cleaned(old)) is not old}
    return kind(**values | changed) if changed else value
