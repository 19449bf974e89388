"""From desired and observed to the exact text of the transactions. Pure."""

from hitless.plan.bridging import bridge, torn
from hitless.plan.planning import Plan, PlannedChange, PlannedTransaction, PlanNote, cleanup, plan
from hitless.plan.text import canonical, iptables_rule, nft_rule

__all__ = [
    "Plan",
    "PlanNote",
    "PlannedChange",
    "PlannedTransaction",
    "bridge",
    "canonical",
    "cleanup",
    "iptables_rule",
    "nft_rule",
    "plan",
    "torn",
]
