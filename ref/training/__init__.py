"""Training under a memory budget: checkpointing and its closed forms."""
