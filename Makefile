# make demo and make test do everything, the set-up included; make setup does only that.
#
# PYTHON=...        another interpreter, 3.11 or newer
# DEVICE=cpu|cuda   the list to install; by default what this machine has (say cuda on a login node without a GPU)
# PIP_...           pip's own settings hold, so a mirror or an index of CPU-only wheels of torch is chosen there

PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
# Asked once, and only where the set-up has something to do.
DEVICE ?= $(eval DEVICE := $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU' && echo cuda || echo cpu))$(DEVICE)
FOLDERS := supernet search proxies data train launch
PINS := requirements/constraints.txt
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint $(PINS)
# Written last, so that an interrupted set-up starts again; line 1: the folder it was made in, line 2: its DEVICE.
READY := $(VENV)/ready

.PHONY: setup test test-slurm test-browser demo demo-ctr lint types format docs clean distclean
.NOTPARALLEL:

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow and not gpu and not slurm and not browser"

# Starts a SLURM of its own; skipped, with the reason, where one is not installed or without root.
test-slurm: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slurm -rs tests/slurm

# Reports of small runs in a real browser; skipped, with the reason, where chromium or its driver is missing. PICTURES=FOLDER
# keeps what was seen.
test-browser: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -m browser -rs tests/browser $(if $(PICTURES),--pictures '$(PICTURES)')

# Two processes, one thread each, and at the end the check of what is handed over; --resume makes a second demo show the
# first one's result in seconds.
demo: setup
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 launch/search.py digits --run-dir runs/digits --resume
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 launch/retrain.py runs/digits
	$(BIN)/python launch/verify.py runs/digits/winners/1
	@echo 'the winner: runs/digits/winners/1   the report: runs/digits/report.html'

# The same for click-through rates: a synthetic log, prepared, searched, retrained beside baselines.
demo-ctr: setup
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 launch/search.py clicks --run-dir runs/clicks --resume
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 launch/retrain.py runs/clicks
	$(BIN)/python launch/verify.py runs/clicks/winners/1
	@echo 'the winner: runs/clicks/winners/1   the report: runs/clicks/report.html'

setup: $(READY)

# A copied or moved environment still points to its old folder; another DEVICE is another list.
ifneq ($(shell sed -n 1p $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif
ifeq ($(origin DEVICE),command line)
ifneq ($(shell sed -n 2p $(READY) 2>/dev/null),$(DEVICE))
.PHONY: $(READY)
endif
endif

$(READY): setup.py pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'subshot needs Python 3.11 or newer; $(PYTHON) is older or missing. Name one: make setup PYTHON=/path/to/python3.11'; \
	  exit 1; }
	@case '$(DEVICE)' in cpu|cuda) ;; *) echo 'DEVICE is cpu or cuda, not "$(DEVICE)".'; exit 1 ;; esac
	@echo 'Setting up $(VENV) with the $(DEVICE) list; the first time this takes some minutes.'
	@{ printf '%s\n' '$(CURDIR)' '$(DEVICE)' | cmp -s - $@ && $(BIN)/python -c ''; } || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $@
	$(INSTALL) torch setuptools
# See setup.py: torchrec asks for the CUDA build of fbgemm by name, so on cpu the two may not look for what they need.
	@if [ '$(DEVICE)' = cuda ]; then set -ex; \
	  $(INSTALL) --no-build-isolation --editable '.[dev,cuda]'; \
	else set -ex; \
	  $(INSTALL) --no-build-isolation --editable '.[dev]'; \
	  $(INSTALL) --no-deps torchrec fbgemm-gpu-cpu; \
	fi
	@printf '%s\n' '$(CURDIR)' '$(DEVICE)' > $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the import hook of an editable install, so it reads the six folders through links.
types: setup
	@rm -rf build/types && mkdir -p build/types/subshot
	@for folder in $(FOLDERS); do ln -s "../../../$$folder" "build/types/subshot/$$folder"; done
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# docs/reference.md, from the docstrings; a test says when it is out of date.
docs: setup
	$(BIN)/python docs/make_reference.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(FOLDERS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
