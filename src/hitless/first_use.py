"""Names of a package that are imported when they are first used.

Problem: an import of one name of a package would load all of its modules. Promise: the package's ``__getattr__`` for
exactly the names given; each is looked up once. Imports for the type checker stay in the package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

__all__ = ["on_first_use"]


def on_first_use(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """The ``__getattr__`` of ``package``; ``modules``: the names that each of its modules defines."""
    module_of = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found: object = getattr(import_module(f"{package}.{module_of[name]}"), name)
        vars(sys.modules[package])[name] = found
        return found

    return find
