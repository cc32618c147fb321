# Two commands matter: `make run` trains the pocket agent, `make test` proves the code. Both set up first.
SHELL := /bin/bash
BIN := .venv/bin
ARGS ?=
.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow soak test-faults test-web test-gpu check format bench doctor ui clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: ## .venv with pinned packages, and Chromium (the second call takes no time)
	@./setup.sh

run: setup ## the whole job: SFT, rollouts, pairs, DPO, evaluation, report, promotion
	$(BIN)/dpo-driver run configs/pocket.yaml $(ARGS)

test: setup ## all tests but the slow ones, a process for each core (at most four)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-slow: setup ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not faults" --timeout 1800 $(ARGS)

test-faults: setup ## break browsers on purpose and measure the recovery (on a machine that is otherwise idle)
	$(BIN)/python -m pytest -m faults -rA --timeout 120 $(ARGS)

soak: setup ## 10,000 episodes: does memory, files or folders grow? (ARGS="--episodes 2000 --base 500" for less)
	$(BIN)/python benchmarks/soak.py $(ARGS)

test-web: setup ## the label page: in a real browser, and its guard over HTTP
	$(BIN)/python -m pytest tests/web $(ARGS)

test-gpu: setup ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: setup ## format, lint, types and the quick tests: run it before you push
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow and not learning" $(ARGS)

format: setup ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## environment and training speed on this machine
	$(BIN)/dpo-driver bench env --task click-button --seconds 15
	$(BIN)/dpo-driver bench train

doctor: setup ## check this machine
	$(BIN)/dpo-driver doctor

ui: setup ## MLflow's pages on loopback
	$(BIN)/dpo-driver ui

clean: ## remove .venv and caches; runs/ stays
	rm -rf .venv build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
