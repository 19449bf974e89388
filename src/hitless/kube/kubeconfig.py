"""The files of a kubeconfig, merged as kubectl merges them.

Problem: several files make one configuration, each with paths that are relative to itself, and a name may be in many of
them. Promise: the first entry of a name counts, unmerged with later ones, and so does the first current-context;
paths are made absolute by their own file's folder, a login program's too; a file that names something twice is refused,
as kubectl does. No value of a file is in a message, as it may be a secret. What the entries mean is
``contexts``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model.documents import DocumentTooLarge, from_json, from_yaml

__all__ = ["EXPECTED", "Kubeconfig", "KubeconfigEntry", "merged", "named_by_environment"]

EXPECTED = "a kubeconfig that names a cluster and a user"
_KEPT = f"{EXPECTED}: --kubeconfig FILE or KUBECONFIG; servers have /etc/rancher/rke2/rke2.yaml or …/k3s/k3s.yaml"

_PATHS = {"cluster": ("certificate-authority",), "user": ("client-certificate", "client-key", "tokenFile")}


@dataclass(frozen=True, slots=True)
class KubeconfigEntry:
    """A file's entry for one name: without empty fields, and with absolute paths."""

    where: str
    body: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """All files together; ``where`` names them."""

    where: str
    clusters: Mapping[str, KubeconfigEntry]
    users: Mapping[str, KubeconfigEntry]
    contexts: Mapping[str, KubeconfigEntry]
    current: str


def merged(paths: Sequence[Path]) -> Kubeconfig:
    """The files merged into one configuration; ``InputError`` names the file that is not a kubeconfig."""
    names: dict[str, dict[str, KubeconfigEntry]] = {"cluster": {}, "user": {}, "context": {}}
    current = ""
    for path in paths:
        document = _document(path)
        for kind, known in names.items():
            for name, entry in _entries(document, kind, path).items():
                known.setdefault(name, entry)
        named = document.get("current-context")
        current = current or (named if isinstance(named, str) else "")
    where = ", ".join(map(str, paths))
    if not any(names.values()):
        raise InputError("it has no clusters", where=where, expected=EXPECTED)
    return Kubeconfig(where, names["cluster"], names["user"], names["context"], current)


def named_by_environment() -> list[Path]:
    """As kubectl: the files of KUBECONFIG that are there."""
    named = dict.fromkeys(Path(one).expanduser() for one in os.environ.get("KUBECONFIG", "").split(os.pathsep) if one)
    try:
        there = [one for one in named if one.exists()]
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}", where="KUBECONFIG") from error
    if named and not there:
        raise InputError(f"none of {', '.join(map(str, named))} is there", where="KUBECONFIG", expected=_KEPT)
    return there


def _document(path: Path) -> Mapping[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise InputError("it is not a regular file, and is read more than once", where=str(path), expected=EXPECTED)
        document = _parsed(files.read_text(path), path)
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), expected=_KEPT) from error
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}", where=str(path), expected=EXPECTED) from error
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, DocumentTooLarge | _NoYaml) else "it is not YAML"
        raise InputError(why, where=str(path), expected=EXPECTED) from None
    if not isinstance(document, dict):
        raise InputError("it is not a kubeconfig", where=str(path), expected=EXPECTED)
    return document


class _NoYaml(ValueError):
    """A YAML error, without what the library quotes of the file: that may be a password."""


def _parsed(text: str, path: Path) -> Any:
    """JSON is YAML, is read much faster, and needs no library (Kubernetes' own tools write it)."""
    try:
        document = from_json(text)
    except ValueError:
        document = _yaml(text, path)
    # PyYAML accepts lone surrogates and recursive documents, which nothing else can read: ValueError.
    json.dumps(document, skipkeys=True, default=repr, ensure_ascii=False).encode()
    return document


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml  # 4 MB, and not in every image of the agent
    except ImportError as error:
        expected = "JSON (kubectl config view --raw -o json)"
        raise InputError("it is YAML, and PyYAML is not installed", where=str(path), expected=expected) from error
    try:
        return from_yaml(text)
    except yaml.MarkedYAMLError as error:
        problem = " ".join(re.sub(r"(['\"]).*\1", "…", one) for one in (error.context, error.problem) if one)
        raise _NoYaml(f"{problem} (line {error.problem_mark.line + 1})" if error.problem_mark else problem) from None
    except yaml.YAMLError:
        raise _NoYaml("it is not YAML") from None


def _entries(document: Mapping[str, Any], kind: str, path: Path) -> dict[str, KubeconfigEntry]:
    """The clusters, users or contexts of a file."""
    listed = document.get(f"{kind}s") or []
    found: dict[str, KubeconfigEntry] = {}
    for one in listed if isinstance(listed, list) else [None]:
        body = (one.get(kind) or {}) if isinstance(one, dict) else None
        if not isinstance(one, dict) or not isinstance(body, dict):
            raise InputError("it is not a kubeconfig", where=str(path), expected=f"a list of {kind}s")
        name = str(one.get("name") or "")
        if name in found:
            raise InputError(f"it has two {kind}s {name!r}", where=str(path), expected="a name for each")
        found[name] = KubeconfigEntry(str(path), _whole(body, kind, path.absolute().parent))
    return found


def _whole(body: Mapping[str, Any], kind: str, folder: Path) -> dict[str, Any]:
    """Without empty fields, and with absolute paths: also of a login program, unless it is found by PATH."""
    found = {key: value for key, value in body.items() if value is not None and value != ""}
    for key in _PATHS.get(kind, ()):
        if isinstance(found.get(key), str):
            found[key] = os.path.normpath(folder / found[key])
    program = found.get("exec")
    if isinstance(program, dict) and isinstance(command := program.get("command"), str) and "/" in command:
        found["exec"] = {**program, "command": os.path.normpath(folder / command)}
    return found
