"""What ``iptables`` without a backend in its name means on a node of the lab.

Problem: on a real node the plain names are the node's backend, and agents (flanneld, kube-router, scripts) call those;
on the machine that holds the lab they are whatever its distribution chose. Promise: for a plan's backend, each plain
name that leads to the other one on this machine, with the program that it shall be; the keeper shows them so in the
node's mount namespace, by any path, and nowhere else. Names that are not installed, or right already, stay as they are.
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
