"""Restarting a network agent by the Kubernetes API: the methods, and what each of them is known by.

Problem: a restart is done by drills and by rollouts, and what a method needs (rights, patience, a question to people)
was spread over whoever used it. Promise: everything about a method stands in ``methods``; ``restarting`` does it once,
and tells each step. It knows nothing of drills, pods of ours, or traffic. Next stages: ``hitless.cluster``,
``hitless.operations``.
"""
