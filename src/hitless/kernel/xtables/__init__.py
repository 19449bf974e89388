"""iptables-legacy, read in the kernel's own encoding: no program is run.

Problem: the old xtables path sends no events, and running ``iptables-save`` to look at it costs milliseconds and a
process. Promise: extension blobs are decoded to model steps (``extensions``, used for iptables-nft's compat
expressions too). What is not understood stays in the result as ``Opaque`` or ``OpaqueAction``.
"""
