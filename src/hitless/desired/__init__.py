"""The node's desired state: a pure function of the snapshot."""

from hitless.desired.rules import desired_state, forward_rules, jump_rule, masquerade_rules

__all__ = ["desired_state", "forward_rules", "jump_rule", "masquerade_rules"]
