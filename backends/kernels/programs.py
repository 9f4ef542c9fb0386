"""Every program that a launcher may ask for, and what it is compiled for."""

from backends.kernels import BFLOAT16, FLOAT16, FLOAT32, Program

__all__ = ["AMPERE", "HOPPER", "every_program"]

AMPERE, HOPPER = "sm_80", "sm_90a"
_ANY = {source: (FLOAT32, FLOAT16, BFLOAT16) for source in ("attention_simt", "attention_simt_vjp", "paged_decode")}
_MMA = ("attention_mma", "attention_mma_vjp")


def every_program():
    """(program, architectures) of each."""
    for source, storages in _ANY.items():
        for s in storages:
            yield Program(source, (("STORAGE", s),)), (AMPERE, HOPPER)
    for source in _MMA:
        for d in (64, 128):
            for s in (FLOAT16, BFLOAT16):
                yield Program(source, (("HEAD_DIM", d), ("STORAGE", s))), (AMPERE, HOPPER)
    for d, cols in ((64, 128), (128, 128), (128, 176)):
        for s in (FLOAT16, BFLOAT16):
            yield Program("attention_wgmma", (("HEAD_DIM", d), ("STORAGE", s), ("COLS", cols))), (HOPPER,)
