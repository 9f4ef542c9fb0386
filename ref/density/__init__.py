"""Density models: Bayes nets, autoregressive models, the evidence lower bound, flows."""
