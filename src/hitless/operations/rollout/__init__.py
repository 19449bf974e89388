"""Rollouts: a network DaemonSet restarted or changed node by node, measured, and stopped at the first loss.

Problem: with RollingUpdate the DaemonSet controller restarts every pod that is not ready, and measures nothing.
Promise: the one who drives decides node by node; what is about to be done is written down in the cluster before it is
done, so that anybody can go on and no node is restarted twice; two rollouts never meet. ``values`` is what is written
down, ``record`` where; ``seeing``, ``planning`` and ``changing`` are looked at, decided and done; ``driving`` and
``stepping`` put them together, ``probing`` measures each step. Next stage: ``hitless.cli.rollout``.
"""
