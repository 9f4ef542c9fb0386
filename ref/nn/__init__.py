"""Layers: linear, embedding, norms, rotary positions, gated units, dropout."""
