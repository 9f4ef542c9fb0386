"""Policies from rewards and preferences: reductions and masks, policy-optimisation losses, reward models, selection."""
