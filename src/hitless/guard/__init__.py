"""The guard: a hot standby for nodes that run somebody else's agent."""
