"""What may stand in a rule's text: characters and lengths that iptables and nft both take.

The plan writes nothing else, and ``kernel.rule_text`` lets nothing else through.
"""

from __future__ import annotations

import re

__all__ = ["COMMENT", "TARGET"]

TARGET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+@-]{0,27}")
"""A chain's name; libxtables allows 28 characters."""
COMMENT = re.compile(r"[ -~]{0,255}")
"""A comment, before its quotes and backslashes are escaped."""
