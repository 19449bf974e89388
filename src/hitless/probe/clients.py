"""Who makes the attempts of a kind: what it is made with, and what it offers.

Promise: ``load`` gives a function that an entry of ``kinds`` names, and imports its module only then: a prober without
https loads no TLS. Next stage: ``traffic``.
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
    """A kind of new flow."""

    def start(self, lane: Lane, planned: int) -> None:
        """Begin an attempt; raises ``NoTuple``."""

    def knock(self, flow: ProbeFlow) -> None:
        """Ask a lost flow once more."""

    def give_up(self, flow: ProbeFlow) -> None:
        """Watch a lost flow no longer."""


@dataclass(frozen=True, slots=True)
class ClientContext:
    """What a client is made with. ``closing`` closes what it shares between attempts at the end; ``leaving`` takes a
    function that counts the connections which are counted already, and wait for their far end to close."""

    engine: Engine
    outcomes: Outcomes
    family: Family
    closing: ExitStack
    leaving: list[Callable[[], int]]
    interface: str = ""
    insecure: bool = False


def load(name: str) -> Callable[..., Any]:
    """The function that an entry names as ``module:function``."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
