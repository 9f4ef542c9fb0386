"""What work leaves to the garbage collector."""

import gc


def leaves_nothing_to_collect(work):
    """Whether a second run of `work`, the collector off, leaves no cycle."""
    work()
    gc.collect()
    gc.freeze()  # what stands is not gone through again, by this or by any later collection
    gc.disable()
    try:
        work()
        return gc.collect() == 0
    finally:
        gc.enable()
