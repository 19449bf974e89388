"""What users read is plain English: forms that a reader must translate are kept out of documents, messages and charts.

The list is short on purpose: each entry was found many times in this project, has one plain replacement, and is hardly
ever right. Docstrings and comments are not searched.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD = "CHANGELOG.md"  # what was released is not rewritten
REPLAYED = "lab/standins"  # messages of the programs that these replay

PLAIN = {
    r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b|other\b|less\b|better\b)[a-z]": "is not a …: the reader "
    "expects what it is, and finds the 'no' too late",
    r"\bmend(?:s|ed|ing)?\b": "fix or repair",
    r"\bfor ever\b": "without end, or: never ends",
    r"\bpeople\b": "users, operators or developers: say which",
    r"\bstrangers?\b": "other programs, or unknown clients",
    r"\b(?:cannot|could not) be told\b": "is not known",
    r"\b(?:is|are|was|were|been) told\b": "say who reports what to whom",
    r"\bmeans nothing\b": "cannot be used with …, or has no effect",
    r"\b(?:last|own) words?\b": "message, or output",
    r"\banew\b": "again",
    r"\bstands? in\b(?! for\b)": "is in",
    r"\btells? (?:nobody|somebody|everybody)\b": "reports",
}
"""What is kept out, as a pattern, and what to write."""

SEARCHED = [(re.compile(pattern, re.IGNORECASE), plain) for pattern, plain in PLAIN.items()]


def found_in(text: str) -> Iterator[str]:
    """What of the list is in a text, with its surroundings."""
    text = " ".join(text.split())
    for pattern, plain in SEARCHED:
        for match in pattern.finditer(text):
            yield f"…{text[max(0, match.start() - 30) : match.end() + 30]}…: write {plain}"


def documents() -> Iterator[tuple[str, str]]:
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")]):
        if path.name != OLD:
            yield str(path.relative_to(ROOT)), path.read_text()
    for path in sorted([*ROOT.glob("deploy/*/values.yaml"), *ROOT.glob("deploy/*/templates/NOTES.txt")]):
        yield str(path.relative_to(ROOT)), re.sub(r"^\s*# ?", "", path.read_text(), flags=re.MULTILINE)


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The texts of a module that are no docstrings, with their lines; the parts of an f-string as one text."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            parts = [part if isinstance(part, ast.Constant) else None for part in node.values]
            skipped.update(id(part) for part in parts if part is not None)
            yield node.lineno, "".join(str(part.value) if part is not None else "{…}" for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def test_the_list_finds_what_it_is_for_and_nothing_else() -> None:
    for bad in (
        "'2h' is no duration",
        "it cannot be told whether pods are carried",
        "mend that, then go on",
        "the peer is told the key",
        "each moment stands in the log",
    ):
        assert list(found_in(bad)), bad
    for good in (
        "there is no node worker-1",
        "it is no longer there",
        "recommended, amended",
        "a program that stands in for flanneld",
        "the key word of a rule",
    ):
        assert not list(found_in(good)), good


def test_documents_and_charts_are_in_plain_english() -> None:
    texts = list(documents())
    assert len(texts) > 25
    assert not [f"{name}: {one}" for name, text in texts for one in found_in(text)]


@pytest.mark.slow
def test_messages_and_help_are_in_plain_english() -> None:
    paths = [path for path in sorted((ROOT / "src" / "hitless").rglob("*.py")) if REPLAYED not in path.as_posix()]
    assert len(paths) > 300
    assert not [
        f"{path.relative_to(ROOT)}:{line}: {one}"
        for path in paths
        for line, text in messages(ast.parse(path.read_text()))
        if " " in text
        for one in found_in(text)
    ]
