"""The guard: a hot standby for nodes that run another project's network agent."""
