"""The order of the families: each imports only from those that stand before it."""

FAMILIES = ("nn", "losses", "attention", "optim", "training", "models", "rl")
