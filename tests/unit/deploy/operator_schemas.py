"""PodMonitor and PrometheusRule as JSON schemas, from types that were generated from the Prometheus operator's CRDs.

Problem: `kubernetes-validate` knows only Kubernetes' own objects, and the CRDs themselves are in no Python package.
Promise: fields, which of them are needed, types, choices, patterns and bounds are those of the generated source (its
syntax tree is read; nothing of it is imported or run), and a field that is not there is refused. What this reader does
not understand is an error, never "anything". ``tools/get_helm.py`` fetches the source.
"""

from __future__ import annotations

import ast
import functools
import os
from typing import Any

import jsonschema
import pytest
from tools.get_helm import TYPES

Schema = dict[str, Any]

_PLAIN: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string"},
}
_BOUNDS = {"pattern": "pattern", "min_length": "minLength", "max_length": "maxLength", "ge": "minimum", "le": "maximum"}
_KNOWN_ELSEWHERE = {"apimachinery.ObjectMeta": {"type": "object"}}


@functools.cache
def schema_of(kind: str) -> Schema:
    """The schema of a whole object of this kind; skips (fails where a skip counts) when the source is not there."""
    if not TYPES.exists():
        words = "the Prometheus operator's types are not there: tools/get_helm.py"
        if os.environ.get("REQUIRE_KERNEL") == "1":
            pytest.fail(words)
        pytest.skip(words)
    schema = _Reader(TYPES.read_text()).read(kind)
    jsonschema.Draft7Validator.check_schema(schema)
    return schema


class _Reader:
    def __init__(self, source: str) -> None:
        body = ast.parse(source).body
        self._classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
        self._definitions: dict[str, Schema] = {}

    def read(self, kind: str) -> Schema:
        return {**self._class(kind), "definitions": self._definitions}

    def _class(self, name: str) -> Schema:
        if name not in self._definitions:
            self._definitions[name] = {}  # a class may hold itself
            self._definitions[name] |= self._fields(self._classes[name])
        return {"$ref": f"#/definitions/{name}"}

    def _fields(self, node: ast.ClassDef) -> Schema:
        fields = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
        if ast.unparse(node.bases[0]).startswith("RootModel["):
            (root,) = fields
            return self._type(root.annotation)
        properties: Schema = {}
        needed = []
        for one in fields:
            assert isinstance(one.target, ast.Name)
            name = _alias(one.annotation) or _camel(one.target.id)
            properties[name] = self._type(one.annotation)
            if one.value is None:
                needed.append(name)
        return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}

    def _type(self, node: ast.expr) -> Schema:
        match node:
            case ast.Name(name) if name in _PLAIN:
                return dict(_PLAIN[name])
            case ast.Name("Any"):
                return {}
            case ast.Name(name) if name in self._classes:
                return self._class(name)
            case ast.Attribute() if (known := _KNOWN_ELSEWHERE.get(ast.unparse(node))) is not None:
                return dict(known)
            case ast.Subscript(ast.Name("Optional"), inner):
                return self._type(inner)
            case ast.Subscript(ast.Name("List"), inner):
                return {"type": "array", "items": self._type(inner)}
            case ast.Subscript(ast.Name("Dict"), ast.Tuple([_, inner])):
                return {"type": "object", "additionalProperties": self._type(inner)}
            case ast.Subscript(ast.Name("Union"), ast.Tuple(choices)):
                return {"anyOf": [self._type(one) for one in choices]}
            case ast.Subscript(ast.Name("Literal"), choice):
                choices = choice.elts if isinstance(choice, ast.Tuple) else [choice]
                return {"enum": [ast.literal_eval(one) for one in choices]}
            case ast.Subscript(ast.Name("Annotated"), ast.Tuple([inner, ast.Call(ast.Name("Field"), [], keywords)])):
                return self._type(inner) | _bounds(keywords)
        raise AssertionError(f"not understood: {ast.unparse(node)}")


def _bounds(keywords: list[ast.keyword]) -> Schema:
    found = {}
    for one in keywords:
        if one.arg == "alias":
            continue
        assert one.arg in _BOUNDS, f"not understood: {one.arg}"
        value = ast.literal_eval(one.value)
        if one.arg == "pattern" and "(?i)" in value:  # Go takes flags anywhere, Python in front
            value = f"(?i){value.replace('(?i)', '')}"
        found[_BOUNDS[one.arg]] = value
    return found


def _alias(node: ast.expr) -> str:
    match node:
        case ast.Subscript(ast.Name("Annotated"), ast.Tuple([_, ast.Call(_, [], keywords)])):
            return next((str(ast.literal_eval(one.value)) for one in keywords if one.arg == "alias"), "")
    return ""


def _camel(name: str) -> str:
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)
