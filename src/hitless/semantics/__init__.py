"""What would happen to this packet? An evaluator of rule sets, written from the kernel's documentation and not from the
code that produces rules, so that each can verify the other. Three-valued: carried, not carried, cannot tell.
"""

from hitless.semantics.evaluation import HOOKS, evaluate
from hitless.semantics.outcome import ChainName, Ending, Outcome, State, Translation, Visit
from hitless.semantics.replies import evaluate_reply
from hitless.semantics.witness import PORTS, far_ends, unused_addresses, witnesses

__all__ = [
    "HOOKS",
    "PORTS",
    "ChainName",
    "Ending",
    "Outcome",
    "State",
    "Translation",
    "Visit",
    "evaluate",
    "evaluate_reply",
    "far_ends",
    "unused_addresses",
    "witnesses",
]
