"""The agent's metrics; ``hitless.daemon.metrics`` keeps their values."""

from __future__ import annotations

from collections.abc import Mapping

from hitless.daemon.metrics import Metrics

__all__ = ["agent_metrics"]

_KNOWN: Mapping[str, tuple[str, str]] = {
    "hitless_agent_ready": ("gauge", "1 while every rule stands and the egress path is carried."),
    "hitless_agent_passes_total": ("counter", "Comparisons of the node with what it should have."),
    "hitless_agent_transactions_total": ("counter", "Transactions committed, by backend."),
    "hitless_agent_plan_changes": ("gauge", "Changes that the last comparison asked for."),
    "hitless_agent_last_sync_timestamp_seconds": ("gauge", "When the node was last found, or made, as it should be."),
    "hitless_agent_repairs_total": ("counter", "Damage repaired, by who did it."),
    "hitless_agent_repair_seconds_sum": ("counter", "Time from the event that reported damage to its repair."),
    "hitless_agent_gaps_total": (
        "counter",
        "Times in which the rules did not carry the egress path, by who opened them.",
    ),
    "hitless_agent_gap_seconds_total": ("counter", "How long they lasted, as far as this agent saw."),
    "hitless_agent_healed_flows_total": ("counter", "Flows freed from a binding without translation."),
    "hitless_agent_fights_total": ("counter", "Times that another writer was found to undo our rules again and again."),
    "hitless_agent_errors_total": ("counter", "Failures, by kind."),
    "hitless_agent_event_lag_seconds": ("gauge", "From the last relevant kernel event to the reading of the rules."),
    "hitless_agent_lost_events_total": ("counter", "Times that the kernel dropped events for us."),
    "hitless_agent_start_to_ready_seconds": ("gauge", "From this process's start to the first ready."),
    "hitless_agent_commands_total": ("counter", "Programs run."),
    "hitless_agent_visitors_turned_away_total": (
        "counter",
        "Connections to this page's address that were too slow or too many.",
    ),
    "hitless_overlay_peers": ("gauge", "Nodes whose pods are reached."),
    "hitless_overlay_peers_left_out": ("gauge", "Nodes (or one family of them) that are not served; the log says why."),
    "hitless_overlay_turns_total": ("counter", "Comparisons of the overlay, of one object or of all."),
    "hitless_overlay_full_reads_total": ("counter", "Those of them that read everything from the kernel."),
    "hitless_overlay_writes_total": ("counter", "Objects written, by what was done and to which kind."),
    "hitless_overlay_repairs_total": ("counter", "Damage of links, routes or neighbours repaired."),
    "hitless_overlay_synced": ("gauge", "1 when all leases of the source are known and it can be reached."),
    "hitless_overlay_configuration_changed": ("gauge", "1 while net-conf.json is another one than at this start."),
    "hitless_overlay_leases_away": ("gauge", "1 while the source of leases cannot be asked."),
    "hitless_overlay_outer_changes_total": ("counter", "Changes of this node's address or outer interface."),
    "hitless_build_info": ("gauge", "This version."),
}


def agent_metrics() -> Metrics:
    """All metrics, without values."""
    return Metrics(_KNOWN)
