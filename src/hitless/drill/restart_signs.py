"""Signs that an agent of this machine restarted: not the word of whoever was told to restart it.

Problem: a restart command that ends with 0 may have restarted nothing, and nothing is lost over a restart that did not
happen. Promise: what was there before is looked at, and a restart counts by what changed: another container of the
name, another activation of the systemd unit, another process of the agent. Which process is the agent's is said
(``--agent-process``), or known by the agents' names, or it is a program with CAP_NET_ADMIN in this network of which
another process runs the same command line. Rule changes count only where no such process is known.
Next stage: ``nodes``.
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
"""Programs that scripts start again and again while they wait: another one of them is no sign."""

_STEADY = 0.4
"""Seconds that a process must have run to be taken for a daemon; rounds are at least that far apart."""

_OTHERS = ("kube-proxy", "hitless guard")
"""Writers of rules that are not the agent: what they write says nothing about it."""

_PROPERTIES = ("InvocationID", "MainPID", "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")


@dataclass(frozen=True, slots=True)
class BeforeRestart:
    """What was there before a restart; ``unit`` is what systemd said, empty where it says nothing."""

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
    script = next((word for word in one.argv[1:] if not word.startswith("-")), "")
    return name in (one.name, one.program, script.rpartition("/")[2])


def _known(one: Running) -> bool:
    words = [word.rpartition("/")[2] for word in one.argv[:5]]
    ours = "hitless" in words and words[words.index("hitless") + 1 :][:1] == ["agent"]
    agents = _agents()
    return ours or one.name in agents or one.program in agents or one.program in ("k3s server", "k3s agent")


def _lasting(one: Running) -> bool:
    return one.program not in _WAITING and one.name not in _WAITING


def of_processes(before: BeforeRestart, name: str = "") -> tuple[str, str]:
    """What says that the agent restarted, and what says that it did not; each empty where it cannot be said."""
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
    """The agent's processes that have ended; empty when none has, or none was known."""
    keys = {one.key for one in running()}
    gone = [one for one in before.agents if one.key not in keys]
    return f"{gone[0].program}: process {gone[0].pid} has ended" if gone else ""


def _replaced(
    old: Sequence[Running], new: Iterable[Running], keys: set[tuple[int, int]], mark: Callable[[Running], object]
) -> str:
    """The first process that is gone and of which another runs; empty when there is none."""
    known = {one.key for one in old}
    fresh = [one for one in new if one.key not in known]
    for one in old:
        if one.key not in keys:
            other = next((other for other in fresh if mark(other) == mark(one)), None)
            if other is not None:
                return f"{one.program}: process {other.pid} runs, process {one.pid} has ended"
    return ""


def unit_state(unit: str) -> tuple[tuple[str, str], ...]:
    """What systemd says of the unit's present activation; empty when it says nothing."""
    try:
        told = processes.run(["systemctl", "show", unit, f"--property={','.join(_PROPERTIES)}"], timeout=30).stdout
    except HitlessError:
        return ()
    pairs = (line.partition("=") for line in told.splitlines())
    return tuple((key, value) for key, _, value in pairs if key in _PROPERTIES and value not in ("", "0"))


def of_unit(unit: str, before: BeforeRestart) -> str:
    """What says that the unit was activated anew; empty when nothing does."""
    old, new = dict(before.unit), dict(unit_state(unit))
    if not new or not new.keys() & {"InvocationID", "ActiveEnterTimestampMonotonic"}:
        return ""
    keys = [key for key in _PROPERTIES if key != "MainPID" and key in old and key in new]
    if not any(old[key] != new[key] for key in keys):
        return ""
    was, now = (f"{told.get('InvocationID', '?')[:8]}, process {told.get('MainPID', 'none')}" for told in (old, new))
    return f"{unit}: activation {now} (before: {was})"


def of_rules(changes: Iterable[e.Change], since: int) -> str:
    """Who wrote rules after ``since``, other than those who always do; empty when nobody did."""
    for change in changes:
        writer = change.writer
        words = f"{writer.comm} {writer.argv} {writer.parent}" if writer else ""
        if change.t >= since and change.relevant and not any(other in words for other in _OTHERS):
            by = f"{writer.comm} (process {writer.pid})" if writer and writer.comm else "an unknown writer"
            return f"rules were written by {by}; no process of the agent is known"
    return ""
