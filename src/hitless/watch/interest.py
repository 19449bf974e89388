"""What of the rules a watch keeps. Next stage: ``watching``."""

from __future__ import annotations

from hitless.kernel.nftables.interest import Interest
from hitless.model.standby import TABLE as STANDBY
from hitless.semantics import HOOKS
from hitless.watch.profiles import Profile

__all__ = ["interest"]


def interest(profile: Profile) -> Interest:
    """What an outgoing packet of a pod may meet, and the chains that the profile names, with the guard's copies."""
    chains = {(table.name, chain) for table in profile.tables for chain in table.chains}
    for table in (*(table.name for table in profile.tables), STANDBY):
        chains |= {(table, chain) for chain in profile.names_networks(table)}
    return Interest(frozenset(HOOKS), chains=frozenset(chains))
