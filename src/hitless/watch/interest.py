"""What of the rules a watch keeps. Next stage: ``watching``."""

from __future__ import annotations

from hitless.kernel.nftables.interest import Interest
from hitless.model.standby import TABLE as STANDBY
from hitless.model.standby import copied
from hitless.semantics import HOOKS
from hitless.watch.profiles import Profile

__all__ = ["interest"]


def interest(profile: Profile) -> Interest:
    """What a pod's packet may meet on its way out, and the chains that the profile names, with the guard's copies."""
    chains = {(table.name, chain) for table in profile.tables for chain in table.chains}
    for table in profile.tables:
        for name in table.networks_from:
            chains |= {(table.name, name), *((STANDBY, copy) for copy in copied(table.name, name))}
    return Interest(frozenset(HOOKS), chains=frozenset(chains))
