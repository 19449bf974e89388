"""The overlay's half of the agent: peers' leases to links and routes, kept so."""
