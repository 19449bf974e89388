"""Each public class has a name of its own, so that a search or a traceback leads to one place."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "hitless"

SHARED: dict[str, str] = {}
"""Names that several modules may define: name -> reason. Empty is the aim."""


def public_classes() -> dict[str, list[str]]:
    """The modules that define each class whose name does not begin with an underscore."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(PACKAGE)))
    return found


@pytest.mark.slow
def test_a_class_name_is_used_once() -> None:
    classes = public_classes()
    assert len(classes) > 500
    assert {name: where for name, where in classes.items() if len(where) > 1 and name not in SHARED} == {}
    assert {name for name in SHARED if len(classes.get(name, [])) < 2} == set(), "no longer shared: take it out"
