# `make` alone lists what there is.  Every target sets up .venv by itself; Python 3.11 or later is all it needs.
#
#   PYTHON=python3.12 make test    another interpreter for a new .venv
#   JOBS=4 make test               test processes (default: the number of cores, at most 4)

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && n=4; echo $$n)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup quickstart test lint bench bench-peers bench-quick acceptance links house wheel clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv and install the package into it, editable, with all that the other targets need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "receptance needs Python 3.11 or later; run for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Installing into $(VENV); the first time this takes a few minutes."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[all,test,lint]'
	@touch $@

quickstart: $(STAMP)  ## train a small RWKV-7 on real text, then watch it speak as an RNN (about 4 minutes)
	$(BIN)/receptance quickstart

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: $(STAMP)  ## ruff and the strict type checker
	$(BIN)/ruff check .
	$(BIN)/mypy

# Those that others start, the one that has a target of its own, the one for a GPU, and the one that takes hours.
APART   := $(patsubst %,benchmarks/%.py,cpu_llama cpu_worker quick gpu quality)
PEERS   := benchmarks/.venv

bench: $(STAMP)  ## time the ops and models: every script in benchmarks/, or one: make bench PART=ops
	@for script in $(if $(PART),benchmarks/$(PART).py,$(filter-out $(APART),$(shell grep -l __main__ benchmarks/*.py))); do \
		echo "== $$script"; $(BIN)/python $$script $(ARGS) || exit 1; done

bench-peers: $(PEERS)/.installed  ## build llama.cpp for this processor, in an environment of its own, for PART=cpu

$(PEERS)/.installed: benchmarks/peers.txt
	@echo "Compiling llama.cpp into $(PEERS); this needs a C++ compiler and takes a quarter of an hour."
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	CMAKE_ARGS="-DGGML_NATIVE=ON" $(PEERS)/bin/python -m pip install --disable-pip-version-check --quiet \
		--no-binary llama-cpp-python -r benchmarks/peers.txt
	@touch $@

bench-quick: $(STAMP)  ## time our kernels and decoding for two minutes, and compare with the last committed figures
	$(BIN)/python benchmarks/quick.py $(ARGS)

acceptance: $(STAMP)  ## run a proof that takes longer than the tests may: make acceptance PART=quickstart
	@if [ -z "$(PART)" ]; then echo "Choose one:"; \
		ls tests/acceptance | sed -n 's/^test_\(.*\)\.py$$/  make acceptance PART=\1/p'; exit 2; fi
	$(BIN)/python -m pytest -s --verbose tests/acceptance/test_$(PART).py $(ARGS)

links: $(STAMP)  ## bring docs/ up to date: the generated reference, the line numbers of links into source files
	$(BIN)/python -m tests.update_reference
	$(BIN)/python -m tests.update_links

house: $(STAMP)  ## train the little model that the package brings again (an hour or two on two cores), and write its card
	$(BIN)/receptance train house --resume
	$(BIN)/python -m tests.update_house runs/house

wheel: $(STAMP)  ## build dist/receptance-*-py3-none-any.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove what the tools leave behind, but not .venv
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv too
	rm -rf $(VENV)
