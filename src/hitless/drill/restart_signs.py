"""Evidence that an agent of this machine restarted, other than the result of the command that was to restart it.

Problem: a restart command that exits with 0 may have restarted nothing, and a restart that did not happen loses
nothing. Promise: the state before is compared with the state after: another container of the name, another activation
of the systemd unit, another process of the agent. The agent's process is given (``--agent-process``), or known by the
agents' names, or a program with CAP_NET_ADMIN in this network of which another process has the same command line. Rule
changes are evidence only if no such process is known. Next stage: ``nodes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from hitless import profiles
from hitless.errors import HitlessError
from hitless.kernel import processes
from hitless.kernel.proc import Running, running
from hitless.model import events as e

__all__ = ["BeforeRestart", "ended", "of_processes", "of_rules", "of_unit", "processes_of", "unit_state"]

_OTHER_AGENTS = ("kube-router", "antrea-agent", "weaver", "ovnkube", "kube-ovn-daemon", "aws-k8s-agent")
_K3S = ("k3s-server", "k3s-agent")
"""K3s runs flannel in its own process."""

_WAITING = frozenset({"sleep", "timeout", "tail", "cat", "watch", "pause", "inotifywait", "crictl", "kubectl", "ctr"})
"""Programs that scripts start repeatedly while they wait: a new process of them is not evidence."""

_STEADY = 0.4
"""Seconds that a process must have run to count as a daemon; rounds are at least that far apart."""

_OTHERS = ("kube-proxy", "hitless guard")
"""Writers of rules that are not the agent."""

_PROPERTIES = ("InvocationID", "MainPID", "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")


@dataclass(frozen=True, slots=True)
class BeforeRestart:
    """The state before a restart; ``unit``: the properties that systemd reports, empty if it reports none."""

    containers: frozenset[str] = frozenset()
    unit: tuple[tuple[str, str], ...] = ()
    agents: tuple[Running, ...] = ()
    others: tuple[Running, ...] = ()


def processes_of(name: str = "") -> tuple[tuple[Running, ...], tuple[Running, ...]]:
    """The agent's processes (by ``name``, or by the known names), and other daemons that may change this network."""
    found = running()
    agents = tuple(one for one in found if (_is(one, name) if name else _known(one)))
    daemons = tuple(
        one for one in found if one not in agents and one.administrator and one.age >= _STEADY and _lasting(one)
    )
    return agents, daemons


@cache
def _agents() -> frozenset[str]:
    """Network agents by the names of their processes: of the plugins that have a profile, and some that have none."""
    profiled = (program for one in profiles.clusters().values() for program in one.programs)
    return frozenset((*profiled, *_OTHER_AGENTS, *_K3S))


def _is(one: Running, name: str) -> bool:
    """By the kernel's name, the program's, or that of the script that an interpreter runs."""
    script = next((argument for argument in one.argv[1:] if not argument.startswith("-")), "")
    return name in (one.name, one.program, script.rpartition("/")[2])


def _known(one: Running) -> bool:
    names = [argument.rpartition("/")[2] for argument in one.argv[:5]]
    ours = "hitless" in names and names[names.index("hitless") + 1 :][:1] == ["agent"]
    agents = _agents()
    return ours or one.name in agents or one.program in agents or one.program in ("k3s server", "k3s agent")


def _lasting(one: Running) -> bool:
    return one.program not in _WAITING and one.name not in _WAITING


def of_processes(before: BeforeRestart, name: str = "") -> tuple[str, str]:
    """Evidence that the agent restarted, and evidence that it did not; each empty if there is none."""
    now = running()
    keys = {one.key for one in now}
    if before.agents:
        fresh = [one for one in now if (_is(one, name) if name else _known(one))]
        sign = _replaced(before.agents, fresh, keys, lambda one: one.program)
        if sign:
            return sign, ""
        alive = [one for one in before.agents if one.key in keys]
        still = ", ".join(f"{one.program} (process {one.pid})" for one in alive[:3])
        return "", f"{still} did not end" if alive else "the agent's process has ended, and no other has come"
    return _replaced(before.others, now, keys, lambda one: one.argv), ""


def ended(before: BeforeRestart) -> str:
    """A process of the agent that has ended; empty if there is none, or none was known."""
    keys = {one.key for one in running()}
    gone = [one for one in before.agents if one.key not in keys]
    return f"{gone[0].program}: process {gone[0].pid} has ended" if gone else ""


def _replaced(
    old: Sequence[Running], new: Iterable[Running], keys: set[tuple[int, int]], mark: Callable[[Running], object]
) -> str:
    """The first process that has ended and has a successor; empty if there is none."""
    known = {one.key for one in old}
    fresh = [one for one in new if one.key not in known]
    for one in old:
        if one.key not in keys:
            other = next((other for other in fresh if mark(other) == mark(one)), None)
            if other is not None:
                return f"{one.program}: process {other.pid} runs, process {one.pid} has ended"
    return ""


def unit_state(unit: str) -> tuple[tuple[str, str], ...]:
    """systemd's properties of the unit's current activation; empty if it reports none."""
    try:
        output = processes.run(["systemctl", "show", unit, f"--property={','.join(_PROPERTIES)}"], timeout=30).stdout
    except HitlessError:
        return ()
    pairs = (line.partition("=") for line in output.splitlines())
    return tuple((key, value) for key, _, value in pairs if key in _PROPERTIES and value not in ("", "0"))


def of_unit(unit: str, before: BeforeRestart) -> str:
    """Evidence that the unit was activated again; empty if there is none."""
    old, new = dict(before.unit), dict(unit_state(unit))
    if not new or not new.keys() & {"InvocationID", "ActiveEnterTimestampMonotonic"}:
        return ""
    keys = [key for key in _PROPERTIES if key != "MainPID" and key in old and key in new]
    if not any(old[key] != new[key] for key in keys):
        return ""
    was, now = (f"{unit.get('InvocationID', '?')[:8]}, process {unit.get('MainPID', 'none')}" for unit in (old, new))
    return f"{unit}: activation {now} (before: {was})"


def of_rules(changes: Iterable[e.Change], since: int) -> str:
    """The writer of rules after ``since``, other than those that always write; empty if there is none."""
    for change in changes:
        writer = change.writer
        names = f"{writer.comm} {writer.argv} {writer.parent}" if writer else ""
        if change.t >= since and change.relevant and not any(other in names for other in _OTHERS):
            by = f"{writer.comm} (process {writer.pid})" if writer and writer.comm else "an unknown writer"
            return f"rules were written by {by}; no process of the agent is known"
    return ""
