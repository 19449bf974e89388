"""When and how network agents are restarted on purpose: maintenance windows, and rollouts node by node."""
