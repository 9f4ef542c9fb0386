"""Rank 0 waits for a message that rank 1 never sends."""

import time

import numpy as np

from backends.communicators import MpiCommunicator

if __name__ == "__main__":
    comm = MpiCommunicator()
    if comm.rank == 0:
        comm.recv(np.empty(1), 1)
    time.sleep(60)
