"""The agent: snapshot, observe, plan, apply, watch; adoption, repair, healing, health."""
