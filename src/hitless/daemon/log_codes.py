"""The stable code of every event in the daemons' logs: what dashboards and alerts match, whatever the event is called.

Promise: a code never changes its meaning and is never used again for another event; a test looks for events that have
none. The codes are listed in docs/events.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["CODES", "code_of"]

CODES: Mapping[str, str] = MappingProxyType(
    {
        # both daemons
        "gap": "gap",
        "healed": "flows_freed",
        "repeated": "repeated",
        "start": "start",
        "stop": "stop",
        "visitors": "visitors_turned_away",
        "waiting": "waiting",
        # the agent
        "a part failed": "internal_failure",
        "applied": "rules_applied",
        "applying": "rules_applied_in_part",
        "as desired": "rules_as_desired",
        "backend": "backend_chosen",
        "cannot heal": "flows_not_freed",
        "cannot look": "rules_not_read",
        "carried again": "egress_restored",
        "change": "rule_change",
        "draining": "old_rules_draining",
        "fight": "fight",
        "ignored": "flags_ignored",
        "kept": "foreign_rules_kept",
        "kubernetes": "kubernetes_not_answering",
        "no bridge": "reload_not_bridged",
        "no effect": "fields_without_effect",
        "leases": "leases_source",
        "not applied": "rules_not_applied",
        "not carried": "egress_cut_off",
        "overlay applied": "overlay_applied",
        "overlay change": "overlay_change",
        "overlay in the way": "overlay_in_the_way",
        "overlay not applied": "overlay_not_applied",
        "overlay not observed": "overlay_not_read",
        "overlay not planned": "overlay_not_planned",
        "outer interface": "outer_interface",
        "overlay repaired": "overlay_repaired",
        "peer left out": "peer_left_out",
        "peer no longer left out": "peer_taken_in",
        "plain masquerade": "random_fully_unsupported",
        "ready": "ready",
        "repaired": "rules_repaired",
        "slowed down": "repairs_slowed",
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

_OTHER = re.compile(r"[^a-z0-9]+")


def code_of(event: str) -> str:
    """The event's code; of one that is not listed (an architecture test finds it) the letters of its name."""
    return CODES.get(event) or _OTHER.sub("_", event.lower()).strip("_")
