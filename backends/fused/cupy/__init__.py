"""Fused forms on CUDA: each picks a kernel of `backends.kernels` and launches it.

Nothing here imports CuPy as it loads: arrays come with their library, and `device.current` finds it.
"""
