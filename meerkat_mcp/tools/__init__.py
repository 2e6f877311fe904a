"""What the agent may use beside its caller's tools."""
