"""After `keep_freed_pages` an array of the size of a freed one costs no page faults."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from backends.pages import keep_freed_pages

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        np.ones(2**25 + 2**20, np.uint8)  # beyond 32 MB glibc's own, moving threshold ends
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {keep}:
    assert keep_freed_pages()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_pages_are_used_again():
    plain, kept = (
        int(subprocess.check_output([sys.executable, "-c", PROGRAM.format(keep=keep)], text=True))
        for keep in (False, True)
    )
    assert kept < 100 < plain
