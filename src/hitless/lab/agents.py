"""The agents that can be started in a node, by name.

Problem: a drill compares agents side by side and must not know how each is started and configured, or how it reports
that it is ready. Promise: ``AGENTS`` has one entry per name; ``of_command`` makes an entry from a user's own command
line (split as a shell would, run without one). Every agent finds its networks in its environment too (``HITLESS_NODE``,
``HITLESS_BACKEND``, ``HITLESS_NETWORK``, ``HITLESS_SUBNET``, ``HITLESS_IPV6_NETWORK``, ``HITLESS_IPV6_SUBNET``), and
placeholders in braces are replaced by values that only the lab knows (``placeholders``). Next stages: ``teams`` has the
agent of each node, ``hitless.lab.supervisor`` runs them.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from hitless.errors import InputError
from hitless.kernel import processes
from hitless.lab import placeholders
from hitless.lab.clusters import LabNode
from hitless.lab.plans import LabPlan, LeaseStore
from hitless.model.families import Family
from hitless.model.reading import shown

__all__ = ["AGENTS", "Agent", "Readiness", "called", "environment", "named", "of_command", "runnable", "split_command"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """How readiness is probed: a ``file`` of the node that it writes (removed before each start), an
    ``http`` address in the node's network that answers 200 to 399, an ``exec`` command in the node that ends with 0, or
    ``started``: it runs. ``period`` is the time between probes, ``patience`` how long to go on probing, in seconds."""

    kind: Literal["file", "http", "exec", "started"] = "started"
    what: str = ""
    period: float = 0.02
    patience: float = 30.0

    @classmethod
    def parse(cls, text: str, where: str = "--ready") -> Readiness:
        """From the command line: ``file:/run/x``, ``http://127.0.0.1:8080/readyz``, ``exec:COMMAND`` or ``started``."""
        kind, _, what = text.partition(":")
        match kind:
            case "started" if not what:
                return cls()
            case "http" if _address(text):
                return cls("http", text)
            case "file" if what.startswith("/"):
                return cls("file", what)
            case "exec" if what.strip():
                split_command(what, where)
                return cls("exec", what)
        raise InputError(
            f"{text!r} is not a readiness probe",
            where=where,
            expected="file:/PATH, http://ADDRESS:PORT/PATH, exec:COMMAND or started",
        )


def _address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets that do not match, a port that is not a number
        return False


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent: its command for a node of a plan, its readiness probe, and its grace period in seconds."""

    name: str
    command: Callable[[LabPlan, LabNode], tuple[str, ...]]
    readiness: Readiness
    grace: float = 30.0
    replays: str = ""
    """For a stand-in: what it replays."""


def environment(plan: LabPlan, node: LabNode) -> dict[str, str]:
    """The environment variables of every agent."""
    variables = {"HITLESS_NODE": node.name, "NODE_NAME": node.name, "HITLESS_BACKEND": str(plan.backend)}
    for family in plan.families:
        stem = "HITLESS_" if family is Family.IPV4 else "HITLESS_IPV6_"
        variables[f"{stem}NETWORK"] = str(plan.network(family))
        variables[f"{stem}SUBNET"] = str(node.subnets[family])
    return variables


def _stand_in(name: str, grace: float, replays: str) -> Agent:
    ready = f"/run/hitless/{name}.ready"

    def command(plan: LabPlan, node: LabNode) -> tuple[str, ...]:
        line = [sys.executable, "-P", "-m", "hitless.lab.standins", name, "--backend", str(plan.backend)]
        for family in plan.families:
            line += ["--network", str(plan.network(family)), "--subnet", str(node.subnets[family])]
        return (*line, "--ready-file", ready)

    return Agent(name, command, Readiness("file", ready), grace, replays)


_LONGEST_NAME = 64

_HEALTH = "127.0.0.1:10990"
"""Each node has its own network namespace, so that all can use one port."""


def _hitless(plan: LabPlan, node: LabNode) -> tuple[str, ...]:
    address, _, port = _HEALTH.partition(":")
    arguments = ["--ip-masq", f"--backend={plan.backend}", f"--healthz-ip={address}", f"--healthz-port={port}"]
    if plan.overlay:
        arguments.append("--iface={iface}")
    if plan.overlay and plan.leases == LeaseStore.ETCD:
        arguments.append("--etcd-endpoints={etcd}")
    else:
        arguments += ["--net-config={net_conf}", "--node-subnet={subnet}"]
        arguments += ["--lease-dir={lease_dir}"] if plan.overlay else []
    return (sys.executable, "-P", "-m", "hitless", "agent", *placeholders.fill(arguments, plan, node))


AGENTS: Mapping[str, Agent] = MappingProxyType(
    {
        agent.name: agent
        for agent in (
            _stand_in("flannel-0.26", 30.0, "the commands of flannel 0.25 and 0.26 at SIGTERM and at start"),
            _stand_in("flannel-0.28", 30.0, "the commands of flannel 0.27 and later at start"),
            # Canal's pod has terminationGracePeriodSeconds 0, of which the kubelet makes two seconds
            _stand_in(
                "flannel-0.28-canal", 2.0, "the commands of flannel 0.27 and later at a first start, as in Canal"
            ),
            _stand_in("adopter", 30.0, "no program's commands: it puts right what is not, in one transaction"),
            Agent("hitless", _hitless, Readiness("http", f"http://{_HEALTH}/readyz"), 30.0),
        )
    }
)
"""The agents that the lab knows by name."""


def named(name: str, where: str = "--agent") -> Agent:
    """The agent of that name; raises ``InputError`` with the known names."""
    if name not in AGENTS:
        raise InputError(f"{name!r} is not an agent", where=where, expected=", ".join(AGENTS))
    return AGENTS[name]


def called(name: str) -> str:
    """A checked ``--agent-name``; raises ``InputError`` for names that a table cannot show."""
    plain = name.strip()
    if not 0 < len(plain) <= _LONGEST_NAME or not plain.isprintable() or "," in plain or plain.endswith("+guard"):
        raise InputError(
            f"{shown(name)} cannot be a name",
            where="--agent-name",
            expected=f"1 to {_LONGEST_NAME} characters, none of them a comma, not ending in +guard",
        )
    return plain


def split_command(text: str, where: str) -> tuple[str, ...]:
    """A command line as an argument list, by the shell's quoting rules, without a shell."""
    try:
        found = tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"{text!r}: {error}", where=where, expected="PROGRAM ARGS…") from error
    if not found:
        raise InputError("is empty", where=where, expected="PROGRAM ARGS…")
    return found


def runnable(text: str, where: str = "--agent-command") -> str:
    """The command line with its program's absolute path; refuses, before a lab is built, what cannot be executed.

    Nodes see this machine's files, but entering one changes the working directory.
    """
    name, *rest = split_command(text, where)
    path = Path(processes.program(name)).absolute()
    if not path.is_file() or not os.access(path, os.X_OK):
        what = "may not be run" if path.is_file() else "is not a program"
        raise InputError(f"{name} {what}", where=where, expected="an executable file, and its arguments")
    return shlex.join([str(path) if "/" in name else name, *rest])


def of_command(text: str, readiness: Readiness | None = None, *, grace: float = 30.0, name: str = "") -> Agent:
    """An agent from ``--agent-command``; its name is the program's unless one is given."""
    line = split_command(text, "--agent-command")

    def command(plan: LabPlan, node: LabNode) -> tuple[str, ...]:
        return placeholders.fill(line, plan, node)

    return Agent(name or line[0].rpartition("/")[2], command, readiness or Readiness(), grace)
