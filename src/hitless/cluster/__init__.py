"""A drill in a Kubernetes cluster: its pods and their streams, other drills, cleanup, schedules.

Problem: operators need the same verdict on a real cluster as in the lab. Promise: whatever a drill makes carries a
label and an owner, and is removed; everything that talks to an API server goes through ``hitless.kube``; it never
writes to an object that it did not make, except for the one that a restart method names (``hitless.restarts``). Next
stage: ``hitless.cli``.
"""
