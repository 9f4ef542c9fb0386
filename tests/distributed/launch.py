"""Starting programs under mpiexec, and never leaving one behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# What Open MPI asks of a job run by root, and of more ranks than cores; MPICH reads none of it.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}


def mpi(ranks, module, *args, timeout=60, **environment):
    """(exit status, output of all ranks) of `mpiexec -n ranks python -m mpi4py -m module args`.

    After the timeout the whole process group is killed and subprocess.TimeoutExpired raised.
    """
    command = [str(BIN / "mpiexec"), "-n", str(ranks), sys.executable, "-m", "mpi4py", "-m", module, *map(str, args)]
    env = {**os.environ, **ENVIRONMENT, **environment}
    job = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=ROOT
    )  # fmt: skip
    try:
        out, _ = job.communicate(timeout=timeout)
    except BaseException:
        job.terminate()  # the launcher ends its ranks
        try:
            job.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            job.communicate()
        raise
    return job.returncode, out
