"""All kinds of conditions, from all modules of the package."""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules

from hitless.model import matches
from hitless.model.rules import Match

for module in iter_modules(matches.__path__):
    import_module(f"{matches.__name__}.{module.name}")

# a dataclass with slots is a second class: the first one may still be in memory
KINDS = frozenset(
    kind for kind in Match.__subclasses__() if vars(sys.modules[kind.__module__]).get(kind.__name__) is kind
)
