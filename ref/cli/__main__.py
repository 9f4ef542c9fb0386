"""`python -m ref.cli`, which mpiexec needs: `mpiexec -n 4 python -m mpi4py -m ref.cli train --parallel ddp`."""

from ref.cli import main

if __name__ == "__main__":
    main()
