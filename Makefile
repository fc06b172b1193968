# Everything is below .authpipe/ (ignored); `make clean` removes it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .authpipe/venv/bin
BUF = $(firstword $(wildcard .authpipe/node/node_modules/@bufbuild/buf-*/bin/buf))
HOME_FOLDER := .authpipe

.PHONY: help up demo test check promises bench protos lock clean setup setup-test setup-bench

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | awk -F'\t' '{printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}'

setup:
	@tools/setup/setup.sh run

setup-test:
	@tools/setup/setup.sh test

setup-bench:
	@tools/setup/setup.sh bench

up: setup ## Set everything up and run the whole system in the foreground; Ctrl-C stops it
	@$(BIN)/devstack up

demo: setup ## Tell the whole story without a person: connect, serve, refresh, tamper, disconnect, audit
	@$(BIN)/python tools/demo/demo.py

test: setup-test ## Set up what tests need, then run all tests
	@mkdir -p build
	@$(BIN)/python -m pytest -n 3 --max-worker-restart 0 --dist loadscope --no-loadscope-reorder --promises-file=build/results.json

check: setup-test ## Style, types, contracts, protos: ruff, mypy, import-linter, house rules, buf, generated code
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && echo "ruff: clean"
	@$(BIN)/mypy
	@MYPYPATH=tools/bench $(BIN)/mypy tools/bench/*.py tools/demo/*.py
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/python tools/rules/check.py
	@$(BUF) lint protos && $(BUF) format --diff --exit-code protos && echo "buf: clean"
	@$(BIN)/python tools/generate/check.py 2>/dev/null
	@$(BIN)/python tools/generate/pages.py --check

promises: ## Show which tests keep which promise, with their last result; write build/promises.json and docs/trust.md
	@$(BIN)/python tools/promises/report.py

bench: setup-bench ## Measure tokens per second, latency, CPU and memory against their references; write build/bench.json
	@$(BIN)/python tools/bench/bench.py

protos: setup ## Generate the API wheels from protos/, and the pages that are made from protos, errors and locks
	@$(BIN)/python tools/generate/protos.py 2>/dev/null && echo "libs/api is generated."
	@$(BIN)/python tools/generate/pages.py

lock: setup ## Pin every dependency with hashes: requirements.lock, and one for each member
	@UV=$$(command -v uv || echo .authpipe/bootstrap/bin/uv) tools/setup/lock.sh

clean: ## Stop the system and remove everything that was generated
	@[ ! -x $(BIN)/devstack ] || $(BIN)/devstack down
	@rm -rf $(HOME_FOLDER) .venv build && echo "Clean."
