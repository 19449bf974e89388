"""What runs against Kubernetes for users: advice, drill pods, schedules.

Problem: operators need the same verdict on a real cluster as in the lab, and a straight answer to "does my release
have this?". Promise: ``advice`` is pure; everything that talks to an API server goes through ``hitless.kube``;
whatever the drill makes carries a label and an owner, and is removed. It never writes to an object that it did not
make, except for the one that a restart method names. Next stage: ``hitless.cli``.
"""
