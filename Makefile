# Common tasks; the first one you run installs into .venv, which takes a few minutes.
#
#   make demo    one question, answered sequentially and by Plato
#   make serve   start the server on http://127.0.0.1:8000
#   make test    lint, format, types, import layers, all tests
#   make quick   make test without the slow tests (two minutes)
#   make soak    the long tests that make test leaves out
#   make clients the examples, each with its client, against a server (installs the clients first)
#   make lint    lint, format, types, import layers
#   make docs    build the documentation into build/docs; warnings are errors
#   make bench   run the quick benchmarks (a quarter of an hour) and write benchmarks/results/REPORT.md
#   make engines the tests that every engine passes, against real vLLM and llama.cpp (half an hour)
#   make clean   remove .venv, .clients, .engines, build output and tool caches

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
BENCHMARKS := answers ablations worst_case peers
RESULTS := benchmarks/results

# What computes by itself, and what needs the whole machine; everything else is the second half.
FIRST := tests/engine tests/benchmarks tests/models tests/prompting tests/k8s
CLUSTERS := tests/end_to_end tests/server tests/web tests/docs/test_tutorial.py \
	tests/k8s/test_deploying.py
# One thread each: threads of OpenMP wait for each other where two processes share two cores.
HALVES := @OMP_NUM_THREADS=1 $(MAKE) --no-print-directory -j2 --output-sync tests-first tests-second

.PHONY: tests-first tests-second demo serve test quick soak lint docs bench clients engines clean

demo: $(INSTALLED)
	@$(BIN)/python -m deployments.demo

serve: $(INSTALLED)
	@$(BIN)/plato serve

test: lint
	$(HALVES) MARK="not soak"
	$(BIN)/python -m pytest $(CLUSTERS)

quick: lint
	$(HALVES) MARK="not slow and not soak"

# Two halves of the tests at the same time, each printed when it is done.
tests-first:
	$(BIN)/python -m pytest -m "$(MARK)" $(FIRST) $(CLUSTERS:%=--ignore=%)

tests-second:
	$(BIN)/python -m pytest -m "$(MARK)" $(CLUSTERS:%=--ignore=%) $(FIRST:%=--ignore=%)

soak: $(INSTALLED)
	$(BIN)/python -m pytest -m soak
	PLATO_CHAOS_SEEDS=40 $(BIN)/python -m pytest tests/scheduling/test_chaos.py
	PLATO_RANDOM_EXAMPLES=100 $(BIN)/python -m pytest tests/engine/torch/test_random_operations.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs . build/docs
	@echo "build/docs/index.html"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Plato requires Python 3.11 or newer; set it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "$(PYTHON) has no venv module; install it (on Debian and Ubuntu: python3-venv)" >&2; exit 1; }
	@echo "Installing into .venv; this takes a few minutes"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

bench: .venv/benchmarks-installed
	for name in $(BENCHMARKS); do \
		$(BIN)/python -m benchmarks.$$name --quick --json $(RESULTS)/$$name.json || exit 1; \
	done
	$(BIN)/python -m benchmarks.publish $(RESULTS)

clients: $(INSTALLED)
	$(BIN)/python -m benchmarks.clients --json $(RESULTS)/clients.json

engines: $(INSTALLED)
	$(BIN)/python -m benchmarks.engines --only conformance --json $(RESULTS)/engines.json

.venv/benchmarks-installed: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[benchmark]'
	@touch $@

clean:
	rm -rf .venv .clients .engines examples/node/node_modules build dist *.egg-info .pytest_cache .mypy_cache \
		.ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
