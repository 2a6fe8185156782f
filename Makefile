# Cirri: every command a user or CI needs.  Each target does its own set-up.
VENV := .venv
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup build demo connectivity test lint bench kernels images images-test clean

help:			## this list
	@echo "Cirri: identity-aware networking for workloads.  As root, on Debian 12 or 13:"
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "demo, test, lint and bench do setup first; when it is done, that takes half a second."

setup:			## install what is needed from Debian and PyPI (.venv), compile the kernel programs
	@deploy/setup.sh

build:			## compile the kernel programs, the CNI plugin and the .proto files, without installing anything
	@$(MAKE) --no-print-directory -C bpf
	@$(MAKE) --no-print-directory -C services/cirri/cni
	@$(MAKE) --no-print-directory -C libs/cirri/maglev
	@$(MAKE) --no-print-directory -C libs/cirri/hubble
	@$(MAKE) --no-print-directory -C services/cirri/dnsproxy/core
	@$(MAKE) --no-print-directory -C services/cirri/bgp
	@$(MAKE) --no-print-directory -C services/cirri/sensor

demo: setup		## a cluster on this machine, and the Star Wars demo on it (KEEP=1 leaves it up; ROUTING=tunnel, FAMILY=6)
	@$(VENV)/bin/cirri lab demo $(if $(KEEP),--keep) $(if $(ROUTING),--routing $(ROUTING)) $(if $(FAMILY),--family $(FAMILY))

test: setup		## every test: units, kernel programs, services on a real bus, labs
	@deploy/test.sh

connectivity: setup	## the connectivity tests of the field in a cluster on this machine (TEST=REGEX chooses)
	@$(VENV)/bin/cirri lab up --name connectivity --without bgp --without l2 --without sensor
	@$(VENV)/bin/cirri --lab connectivity connectivity test $(if $(TEST),--test '$(TEST)'); \
	  code=$$?; $(VENV)/bin/cirri lab down --name connectivity; exit $$code

lint: setup		## formatting, style, types, import contracts
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: setup		## the benchmarks; run them alone on the machine (ROWS=B1,B2 chooses)
	@$(PY) integration/bench $(if $(ROWS),--rows $(ROWS))

kernels: setup		## programs and packet tables under Debian's 6.1 kernel, in a virtual machine (FILES=... chooses)
	@deploy/kernels.sh $(FILES)

images:			## a container image for each service, without a registry (FRESH=1 builds all anew)
	@deploy/images/build.sh

images-test: setup	## what make images built, run by containerd as the chart says, is found healthy
	@$(PY) deploy/images/check.py

clean:			## remove what was compiled
	@rm -rf bpf/build services/cirri/cni/build libs/cirri/maglev/build libs/cirri/hubble/build services/cirri/dnsproxy/core/build services/cirri/bgp/build services/cirri/sensor/build integration/bench/build deploy/images/build
