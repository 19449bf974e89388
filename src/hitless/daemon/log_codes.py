"""The stable code of every event in the daemons' logs, which dashboards and alerts match.

Promise: an event may be renamed, but its code never changes its meaning and is never used for another event; a test
finds events without a code. The codes are listed in docs/events.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["CODES", "FORMER", "code_of"]

CODES: Mapping[str, str] = MappingProxyType(
    {
        # both daemons
        "gap": "gap",
        "healed": "flows_freed",
        "repeated": "repeated",
        "start": "start",
        "stop": "stop",
        "connections turned away": "visitors_turned_away",
        "waiting": "waiting",
        # the agent
        "internal failure": "internal_failure",
        "applied": "rules_applied",
        "applied in part": "rules_applied_in_part",
        "as desired": "rules_as_desired",
        "backend": "backend_chosen",
        "cannot heal": "flows_not_freed",
        "rules not read": "rules_not_read",
        "carried again": "egress_restored",
        "change": "rule_change",
        "draining": "old_rules_draining",
        "fight": "fight",
        "flags ignored": "flags_ignored",
        "foreign rules kept": "foreign_rules_kept",
        "kubernetes not answering": "kubernetes_not_answering",
        "reload not bridged": "reload_not_bridged",
        "fields without effect": "fields_without_effect",
        "leases": "leases_source",
        "not applied": "rules_not_applied",
        "not carried": "egress_cut_off",
        "overlay applied": "overlay_applied",
        "overlay change": "overlay_change",
        "overlay blocked": "overlay_in_the_way",
        "overlay not applied": "overlay_not_applied",
        "overlay not observed": "overlay_not_read",
        "overlay not planned": "overlay_not_planned",
        "outer interface": "outer_interface",
        "overlay repaired": "overlay_repaired",
        "peer left out": "peer_left_out",
        "peer no longer left out": "peer_taken_in",
        "random-fully unsupported": "random_fully_unsupported",
        "ready": "ready",
        "repaired": "rules_repaired",
        "repairs slowed down": "repairs_slowed",
        "snapshot": "snapshot",
        "subnet file": "subnet_file",
        "wireguard key": "wireguard_key",
        # the guard
        "cannot look for poisoned flows": "flows_not_read",
        "cannot post an Event": "event_not_posted",
        "cannot tell": "cannot_tell",
        "cannot write the standby": "standby_not_written",
        "followed": "standby_followed",
        "forward_gap": "forward_gap",
        "gap begins": "gap_begins",
        "leak": "leak",
        "no standby": "standby_impossible",
        "note": "note",
        "partly": "egress_partly_cut_off",
        "started": "guard_started",
        "stopped": "guard_stopped",
        "the guard could protect this node": "protection_possible",
        "the guard would refuse": "protection_refused",
        "withdrawn": "standby_withdrawn",
    }
)
"""By the event's name."""

FORMER: Mapping[str, str] = MappingProxyType(
    {
        "applied in part": "applying",
        "connections turned away": "visitors",
        "fields without effect": "no effect",
        "flags ignored": "ignored",
        "foreign rules kept": "kept",
        "internal failure": "a part failed",
        "kubernetes not answering": "kubernetes",
        "overlay blocked": "overlay in the way",
        "random-fully unsupported": "plain masquerade",
        "reload not bridged": "no bridge",
        "repairs slowed down": "slowed down",
        "rules not read": "cannot look",
    }
)
"""Former names of events; their lines have them as ``former_event`` until version 0.3."""
_OTHER = re.compile(r"[^a-z0-9]+")


def code_of(event: str) -> str:
    """The event's code; for an event that is not listed (an architecture test finds it), its name in lower case."""
    return CODES.get(event) or _OTHER.sub("_", event.lower()).strip("_")
