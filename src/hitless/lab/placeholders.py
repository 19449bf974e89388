"""Placeholders in an agent's command line for values that only the lab knows, such as ``{node}``.

Problem: one command line starts the agent of every node, and the address of the lab's etcd is not known before the lab
exists. Promise: a name in braces that is listed in ``PLACEHOLDERS`` is replaced by the node's value; every other brace
(of JSON, say) stays as it is, and so does the rest of the command line. Next stage: ``agents``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from hitless.errors import InputError
from hitless.lab import etcd, overlays
from hitless.lab.clusters import LabNode
from hitless.lab.plans import LabPlan, LeaseStore

__all__ = ["PLACEHOLDERS", "check", "fill", "lease_source"]

PLACEHOLDERS: Mapping[str, Callable[[LabPlan, LabNode], str]] = MappingProxyType(
    {
        "node": lambda _plan, node: node.name,
        "iface": lambda _plan, node: node.uplink,
        "public_ip": lambda _plan, node: str(node.address),
        "subnet": lambda _plan, node: ",".join(map(str, node.subnets.values())),
        "net_conf": lambda plan, _node: overlays.net_conf(plan),
        "etcd": lambda plan, node: etcd.endpoint(plan, node.index),
        "lease_dir": lambda _plan, _node: overlays.LEASE_DIRECTORY,
    }
)
"""Each placeholder with its value on a node."""

_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_OVERLAY = ("net_conf", "etcd", "lease_dir")


def _named(texts: Iterable[str]) -> set[str]:
    return {found for text in texts for found in _PLACEHOLDER.findall(text)}


def fill(line: Iterable[str], plan: LabPlan, node: LabNode) -> tuple[str, ...]:
    """The command line for a node."""
    return tuple(_PLACEHOLDER.sub(lambda found: PLACEHOLDERS[found[1]](plan, node), argument) for argument in line)


def lease_source(commands: Iterable[str]) -> LeaseStore:
    """Where the agents of these command lines keep their leases: in etcd as soon as one of them names it."""
    return LeaseStore.ETCD if "etcd" in _named(commands) else LeaseStore.DIRECTORY


def check(commands: Iterable[str], plan: LabPlan, where: str = "--agent-command") -> None:
    """Refuse placeholders that have no value in a lab without an overlay; raises ``InputError``."""
    unused = sorted(_named(commands) & set(_OVERLAY))
    if unused and not plan.overlay:
        raise InputError(f"{{{unused[0]}}} is for labs with an overlay", where=where, expected="--overlay with it")
