"""Diffusion, score matching, SDEs and their samplers: plain functions of a `model(x, t)`."""
