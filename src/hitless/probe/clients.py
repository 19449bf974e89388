"""The client side of a kind of traffic: what it is made with, and what it offers.

Promise: ``load`` imports the module of a function that an entry of ``kinds`` names only when it is needed: a prober
without https loads no TLS. Next stage: ``traffic``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from hitless.model.families import Family
from hitless.probe.engine import Engine
from hitless.probe.flows import Lane, ProbeFlow
from hitless.probe.outcomes import Outcomes

__all__ = ["ClientContext", "KindClient", "load"]


class KindClient(Protocol):
    """Makes the attempts of one kind."""

    def start(self, lane: Lane, planned: int) -> None:
        """Begin an attempt; raises ``NoTuple``."""

    def knock(self, flow: ProbeFlow) -> None:
        """Retry a lost flow on its 5-tuple."""

    def give_up(self, flow: ProbeFlow) -> None:
        """Stop watching a lost flow."""


@dataclass(frozen=True, slots=True)
class ClientContext:
    """What a client is made with. ``closing``: closes at the end what its attempts share; ``lingering``: functions that
    return how many connections have been counted and still wait for the far end to close."""

    engine: Engine
    outcomes: Outcomes
    family: Family
    closing: ExitStack
    lingering: list[Callable[[], int]]
    interface: str = ""
    insecure: bool = False


def load(name: str) -> Callable[..., Any]:
    """The function that an entry names as ``module:function``."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
