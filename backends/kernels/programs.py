"""Every program that a launcher may ask for, and what it is compiled for."""

from backends.kernels import BFLOAT16, FLOAT16, FLOAT32, Program

__all__ = ["AMPERE", "HOPPER", "every_program"]

AMPERE, HOPPER = "sm_80", "sm_90a"
_ANY_STORAGE = ("attention_simt", "attention_simt_vjp", "paged_decode", "rms_norm", "rope", "cross_entropy")
_MMA = ("attention_mma", "attention_mma_vjp")


def every_program():
    """(program, architectures) of each."""
    yield Program("adamw", (("STORAGE", FLOAT32),)), (AMPERE, HOPPER)
    for source in _ANY_STORAGE:
        for s in (FLOAT32, FLOAT16, BFLOAT16):
            yield Program(source, (("STORAGE", s),)), (AMPERE, HOPPER)
    for source in _MMA:
        for d in (64, 128):
            for s in (FLOAT16, BFLOAT16):
                yield Program(source, (("HEAD_DIM", d), ("STORAGE", s))), (AMPERE, HOPPER)
    yield Program("probe_wgmma", (("STORAGE", FLOAT16),)), (HOPPER,)
    for d, cols in ((64, 128), (128, 128), (128, 176)):
        for s in (FLOAT16, BFLOAT16):
            yield Program("attention_wgmma", (("HEAD_DIM", d), ("STORAGE", s), ("COLS", cols))), (HOPPER,)
