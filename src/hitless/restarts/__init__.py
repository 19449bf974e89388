"""Restarting a network agent through the API: the methods, and how each restart is recognised.

Problem: drills and rollouts restart agents, and what a method needs (permissions, time, confirmation) was spread over
both. Promise: ``methods`` has everything about each method; ``execution`` carries it out once and reports each step.
Nothing here knows about drills, their pods, or traffic. Next stages: ``hitless.cluster``, ``hitless.operations``.
"""
