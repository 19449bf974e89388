"""Nothing decides by a sentence of our own: sentences are for people, and may be reworded at any time.

Looked for: comparisons, ``in``, ``startswith``, ``endswith`` and patterns between a string constant and something that
is called like a sentence (a reason, a detail, the text of an error). What programs and servers say is matched in
adapters; each is listed here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "hitless"

SENTENCES = frozenset(
    {"detail", "doubt", "forward_doubt", "forward_reason", "left_out", "message", "partly", "problem", "reason"}
    | {"remedy", "sentence", "summary", "why"}
)
"""Names of values that hold sentences."""
OF_OBJECTS = frozenset({"text"})
"""Names of attributes that hold sentences (as variables they are anything)."""

ADAPTERS = {
    "cli/error_messages.py": "click's and argparse's messages",
    "kernel/": "programs' messages, and the kernel's names",
    "kube/": "servers', proxies' and TLS libraries' messages; the API's reasons are identifiers",
    "lab/": "programs' messages",
    "profiles/__init__.py": "tomllib's and msgspec's messages",
    "testing/": "the API's reasons are identifiers",
}
"""Where the text is somebody else's: path (a folder ends with a slash) and whose it is."""


def _sentence(node: ast.expr) -> bool:
    """Whether an expression is called like a sentence, or is the text of an error."""
    if isinstance(node, ast.Name):
        return node.id in SENTENCES
    if isinstance(node, ast.Attribute):
        return node.attr in SENTENCES | OF_OBJECTS
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return node.slice.value in SENTENCES
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id == "str" and node.args:
            named = node.args[0]
            name = named.attr if isinstance(named, ast.Attribute) else named.id if isinstance(named, ast.Name) else ""
            return name in {"error", "failure", "refused", "unclear"} | SENTENCES
        if isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            return isinstance(node.args[0], ast.Constant) and node.args[0].value in SENTENCES
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"lower", "strip"}:
            return _sentence(node.func.value)
    return False


def _words(node: ast.expr) -> bool:
    """Whether an expression is text that we wrote: a constant that is not empty, or made of some."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and bool(node.value)
    if isinstance(node, ast.Name):
        return node.id.isupper()
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Tuple) and any(map(_words, node.elts)))


def _decisions(tree: ast.AST) -> Iterator[int]:
    """Lines that compare a sentence with words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = any(isinstance(one, ast.In | ast.NotIn) for one in node.ops) and any(map(_sentence, sides[1:]))
            if parts or (any(map(_sentence, sides)) and any(map(_words, sides))):
                yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            call = node.func
            begins = call.attr in {"startswith", "endswith"} and _sentence(call.value) and any(map(_words, node.args))
            cut = call.attr in {"partition", "rpartition"} and _sentence(call.value)
            if begins or cut or (call.attr in {"search", "match", "fullmatch"} and any(map(_sentence, node.args))):
                yield node.lineno


def _adapter(path: str) -> bool:
    return any(path == name or (name.endswith("/") and path.startswith(name)) for name in ADAPTERS)


@pytest.mark.slow
def test_nothing_decides_by_a_sentence_of_our_own() -> None:
    found = [
        f"src/hitless/{name}:{line}"
        for path in sorted(SOURCES.rglob("*.py"))
        if not _adapter(name := str(path.relative_to(SOURCES)))
        for line in _decisions(ast.parse(path.read_text()))
    ]
    assert found == [], "give it a code (an enum, a field) and compare that"


@pytest.mark.parametrize(
    "text",
    [
        'if "no process of it is seen" not in str(error): pass',
        'if one.text.startswith("protected"): pass',
        "if detail.startswith(NO_SIGN): pass",
        'if family["why"] == "whole": pass',
        'if f"{table} {chain} rule " in side.reason: pass',
        'if "x" in facts.get("reason"): pass',
        're.search("left alone", record.why)',
        "if any(about in reason for reason in verdict.reasons): pass",
        'if "resource version" in str(change.error): pass',
        'str(error).partition(" (expected")',
    ],
)
def test_such_decisions_are_found(text: str) -> None:
    assert list(_decisions(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    ['if reason == "": pass', "if reason != before.reason: pass", 'if code == "dropped": pass', "if why: pass"],
)
def test_comparisons_of_codes_and_of_two_sentences_are_none(text: str) -> None:
    assert not list(_decisions(ast.parse(text)))


def test_the_list_of_adapters_is_no_longer_than_it_must_be() -> None:
    for name in ADAPTERS:
        assert (SOURCES / name).exists(), name
