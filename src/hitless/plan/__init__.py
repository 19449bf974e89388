"""From desired and observed to the exact text of the transactions. Pure."""

from hitless.plan.bridging import bridge, torn
from hitless.plan.planning import Change, Note, Plan, Transaction, cleanup, plan
from hitless.plan.text import canonical, iptables_rule, nft_rule

__all__ = [
    "Change",
    "Note",
    "Plan",
    "Transaction",
    "bridge",
    "canonical",
    "cleanup",
    "iptables_rule",
    "nft_rule",
    "plan",
    "torn",
]
