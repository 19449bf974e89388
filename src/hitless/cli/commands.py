"""The commands there are, and what each is for: the list behind ``hitless --help``. Imports nothing."""

from __future__ import annotations

__all__ = ["COMMANDS", "DAEMONS"]

COMMANDS: dict[str, str] = {
    "doctor": "Look at a node or a cluster: what a restart costs, what is wrong, what to type next.",
    "drill": "Restart agents under load and give a verdict (in the lab by default).",
    "watch": "Show changes to the rules that carry egress as they are made: gaps, and who made them.",
    "probe": "Open new connections all the time and record every one that fails.",
    "farend": "Answer probes, with the source address that it saw.",
    "lab": "A small cluster in network namespaces: up, exec, status, down.",
    "report": "Render a drill's event log again: terminal, HTML, JSON, JUnit, Prometheus.",
    "selftest": "Test the tester: inject known gaps and losses and find them.",
    "advise": "Which flannel a release ships, what its restart costs, what helps.",
    "node-drill": "A drill on this machine, without Kubernetes access.",
    "relay": "The pod's side of a drill in a cluster.",
}
"""Tools (click) and what they are for, in the order of ``hitless --help``."""

DAEMONS: dict[str, str] = {
    "agent": "The node agent: flannel's rules, that outlive their process; its own restarts make no gap.",
    "guard": "A hot standby for nodes that run somebody else's agent.",
}
"""Daemons (argparse) and what they are for."""
