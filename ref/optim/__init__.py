"""Optimizers, clipping and schedules, as plain functions of parameters, gradients and state."""
