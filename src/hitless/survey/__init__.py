"""What runs in a cluster: its nodes, its network agent, and what speaks against touching it now.

Problem: advice, drills and rollouts need the same facts about a cluster before they do anything. Promise: they are read
once, by reading only; the answer is plain values. It knows nothing of drills. Next stages: ``hitless.restarts``,
``hitless.advice``, ``hitless.cluster``, ``hitless.operations``.
"""
