"""Elementwise updates in place, a block that stays in cache at a time, over one array or a list of them.

A list is cut into jobs of about the same size: a large array into several, many small ones into one, so that a
model of hundreds of small tensors costs one call and not hundreds. Jobs are cut by sizes alone, each element by itself:
the bits depend neither on the threads nor on the cut.
"""

from backends.fused.numpy._blas import Part, part
from backends.fused.numpy._scratch import scratch
from backends.threads import run_tiles

__all__ = ["run_blocks"]

# Elements, by measurement: below BLOCK the calls cost more than the cache saves.
BLOCK = 96 * 1024
JOB = 4 * BLOCK


def run_blocks(function, kernel, *, scratches=1, block=BLOCK, **arrays):
    """Call kernel(*scratch, *parts) on every block of the arrays.

    Parameters
    ----------
    function : str
        Name for messages.
    kernel : callable
        Updates its parts in place, each a `Part`; a scratch part is as long as each and holds junk.
    scratches : int
        How many the kernel takes.
    block : int
        Elements of a block.
    **arrays : float[n], or equally long lists of them
        By name, flat and contiguous; those of one place share length and dtype.

    Raises
    ------
    ValueError
        Arrays that are not flat, contiguous and of one length and dtype, or lists of different lengths.
    """
    places = [[part(x) for x in place] for place in _places(function, arrays)]

    def job(cuts):
        with scratch() as work:
            junk = {}
            for k, i, j in cuts:
                dtype = places[k][0].x.dtype
                if dtype not in junk:
                    junk[dtype] = [part(work.take(f"block {n}", (block,), dtype)) for n in range(scratches)]
                own = [Part(x[: j - i], address) for x, address in junk[dtype]]
                kernel(*own, *[Part(x[i:j], address + i * dtype.itemsize) for x, address in places[k]])

    run_tiles(job, _jobs([place[0].x.size for place in places], block))


def _jobs(sizes, block=BLOCK):
    """[[(place, start, stop), ..]]: blocks in their order, about JOB elements a job."""
    jobs, held = [[]], 0
    for k, size in enumerate(sizes):
        for start in range(0, size, block):
            stop = min(start + block, size)
            if held and held + stop - start > JOB:
                jobs.append([])
                held = 0
            jobs[-1].append((k, start, stop))
            held += stop - start
    return [job for job in jobs if job]


def _places(function, arrays):
    """[(array of each name, ..)], one tuple a place, checked."""
    lists = {name: x if isinstance(x, list | tuple) else [x] for name, x in arrays.items()}
    first = next(iter(lists))
    for name, found in lists.items():
        if len(found) != len(lists[first]):
            raise ValueError(
                f"{function}: {name} has {len(found)} arrays, {first} has {len(lists[first])}; needed as many"
            )
    places = list(zip(*lists.values(), strict=True))
    for place in places:
        for name, x in zip(lists, place, strict=True):
            own = place[0]
            if x.ndim != 1 or x.size != own.size or x.dtype != own.dtype:
                raise ValueError(
                    f"{function}: {name} is {x.dtype}{list(x.shape)}, {first} is "
                    f"{own.dtype}{list(own.shape)}; all must be flat and alike"
                )
            if not x.flags.c_contiguous:
                raise ValueError(f"{function}: {name} is not contiguous")
    return places


