"""All commands and what each is for, as ``hitless --help`` lists them. Imports nothing."""

from __future__ import annotations

__all__ = ["COMMANDS", "DAEMONS", "GROUPS", "HIDDEN"]

COMMANDS: dict[str, str] = {
    "doctor": "Check a node or a cluster: what a restart costs, what is wrong, what to type next.",
    "advise": "Which flannel a release ships, what its restart costs, what helps.",
    "watch": "Show changes to the rules that carry egress as they are made: gaps, and who made them.",
    "report": "Render a drill's event log again: terminal, HTML, JSON, JUnit, Prometheus.",
    "drills": "List, show and prune the folders of past drills.",
    "drill": "Restart agents under load and give a verdict (in the lab by default).",
    "rollout": "Restart or change a network agent node by node; stop at the first loss, resume, undo.",
    "node-drill": "A drill on this machine, without Kubernetes access.",
    "probe": "Open new connections all the time and record every one that fails.",
    "farend": "Answer probes, with the source address that it saw.",
    "selftest": "Test the tester: inject known gaps and losses and find them.",
    "lab": "A small cluster in network namespaces: up, exec, status, down.",
    "window": "Maintenance windows: may something begin now, what comes next, wait for it.",
    "retry": "Run a command again where a gap kept it from connecting: hitless retry -- COMMAND.",
    "relay": "The pod's side of a drill in a cluster.",
    "version": "Print the version.",
    "help": "Show the help of a command: hitless help drill.",
}
"""Tools (click) and what they are for."""

DAEMONS: dict[str, str] = {
    "guard": "A hot standby for nodes that run another network agent.",
    "agent": "The node agent: flannel's rules, kept in the kernel while it restarts.",
}
"""Daemons (argparse) and what they are for."""

GROUPS: dict[str, tuple[str, ...]] = {
    "Inspect (nothing is changed)": ("doctor", "advise", "watch", "report", "drills", "window"),
    "Prove": ("drill", "node-drill", "probe", "farend", "selftest", "lab"),
    "Keep": ("rollout", "guard", "agent"),
    "More": ("retry", "version", "help"),
}
"""How ``hitless --help`` shows them."""

HIDDEN = frozenset({"relay"})
"""Commands that work and that users do not need."""
