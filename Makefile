# Cirri: every command a user or CI needs.  Each target does its own set-up.
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help setup build demo test lint bench clean

help:			## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:			## install system packages and .venv, build the kernel programs (idempotent, needs root)
	@deploy/setup.sh

build:			## compile bpf/ and the CNI plugin
	@$(MAKE) --no-print-directory -C bpf
	@$(MAKE) --no-print-directory -C services/cirri/cni

demo: setup		## a cluster on this machine, and the Star Wars demo on it (KEEP=1 keeps it)
	@$(VENV)/bin/cirri lab demo $(if $(KEEP),--keep)

test: setup		## every test: units, kernel programs, services on a real bus, labs
	@deploy/test.sh

lint: setup		## formatting, style, types, import contracts
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: setup		## the benchmarks; run them alone on the machine (ROWS=B1,B2 chooses)
	@$(PY) integration/bench $(if $(ROWS),--rows $(ROWS))

clean:			## remove what the build made
	rm -rf bpf/build services/cirri/cni/build integration/bench/build
