"""Rollouts: a network DaemonSet restarted or changed node by node, measured, and stopped at the first loss.

Problem: with RollingUpdate the DaemonSet controller restarts every pod that is not ready, and measures nothing.
Promise: the driver decides node by node, and writes its next action into the cluster before it acts, so that any
operator can continue and no node is restarted twice; two rollouts never run at once. ``values`` holds what is written,
``record`` reads and writes it; ``observation`` reads the cluster, ``node_order`` chooses the next nodes,
``daemonset`` changes the DaemonSet; ``driver`` and ``step_run`` put these together, and ``step_drill`` measures each
step. Next stage: ``hitless.cli.rollout``.
"""
