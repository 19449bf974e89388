"""Frozen values: families, packets, rules, events. No input or output happens here."""
