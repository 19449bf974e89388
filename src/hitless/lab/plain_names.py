"""Which program ``iptables``, without a backend in its name, is on a node of the lab.

Problem: on a real node the plain names are the node's backend, and agents (flanneld, kube-router, scripts) call those;
on the machine that holds the lab the distribution chose the backend. Promise: for a plan's backend, each plain name
that is the other backend on this machine, with the program that replaces it; the keeper mounts them in the node's mount
namespace only. Names that are not installed, or correct already, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hitless.errors import MissingError
from hitless.kernel import processes
from hitless.model.families import Backend, Family

__all__ = ["replaced"]


def replaced(backend: Backend) -> Mapping[str, str]:
    """Path of a plain name -> path of the backend's program, for those that differ here. Reads links only."""
    found: dict[str, str] = {}
    for family in Family:
        for end in ("", "-save", "-restore"):
            try:
                plain = Path(processes.program(f"{family.iptables}{end}"))
                wanted = Path(processes.program(backend.tool(family, end)))
            except MissingError:
                continue
            if plain.resolve() != wanted.resolve():
                found[str(plain.parent.resolve() / plain.name)] = str(wanted)
    return found
