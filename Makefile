# Every target makes its own .venv; a machine needs only Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
COVERAGE ?=
# Without it every process of the tests compiles their modules and ours anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-fast lint docs dist lock pages bench bench-peers bench-page clean
.DEFAULT_GOAL := help

# Every target with a line that says what it does: the comment after its name.
help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-18s%s\n", $$1, $$2 }'

demo: $(VENV)/.demo ## runs the gateway and local providers, and shows every kind of request
	$(BIN)/imagegate demo $(ARGS)

# The tests of a file stay in one process, so that what they share starts once; the order is that of tests/conftest.py. A
# process that is killed ends the run: started anew, it may wait for ever.
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# Tests of servers wait half of their time, so that two processes share a core.
CORES := $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)')
PROCESSES := $(shell expr $(CORES) \* 2)

test: $(VENV)/.test ## all tests, in under 8 minutes on two cores; COVERAGE=1: with their coverage, which takes longer
	$(if $(COVERAGE),$(BIN)/coverage erase)
	$(PYTEST) -n $(PROCESSES) $(if $(COVERAGE),--cov --cov-report=) $(ARGS)
	$(if $(COVERAGE),$(BIN)/coverage report --fail-under=95)

# tests/wire has none of them; leaving it out saves its imports.
test-fast: $(VENV)/.test ## tests that start no server and no program, in under a minute
	HYPOTHESIS_PROFILE=fast $(PYTEST) -n auto -m "not server" --ignore=tests/wire $(ARGS)

lint: $(VENV)/.test $(VENV)/.lint ## style, format and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

dist: $(VENV)/.release ## wheel, source distribution and bill of materials, in artifacts/dist
	rm -rf artifacts/dist
	$(BIN)/python -m build --no-isolation --outdir artifacts/dist
	$(BIN)/twine check --strict artifacts/dist/*
	rm -rf artifacts/image && $(BIN)/python -m venv --without-pip artifacts/image
	$(BIN)/python -m pip --python artifacts/image/bin/python install --quiet --disable-pip-version-check \
		--require-hashes -r deploy/requirements.txt
	$(BIN)/python -m pip --python artifacts/image/bin/python install --quiet --disable-pip-version-check \
		--no-deps artifacts/dist/*.whl
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --of JSON \
		--output-file artifacts/dist/sbom.cdx.json artifacts/image/bin/python

lock: ## what the image contains and what builds a release, pinned with hashes; needs uv
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--extra all pyproject.toml --output-file deploy/requirements.txt
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		deploy/requirements-build.in --output-file deploy/requirements-build.txt
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		deploy/requirements-release.in --output-file deploy/requirements-release.txt

pages: $(VENV)/.test ## the pages that are made from the code: providers, settings, errors, metrics, commands
	$(BIN)/python docs/.site/reference.py
	$(BIN)/python -c 'from imagegate.registry import installed; print(*installed())' | tr ' ' '\n' | \
		xargs -I{} sh -c '$(BIN)/imagegate models --adapter {} > docs/providers/{}.md'
	$(BIN)/python -m tests.matrix.page docs/providers/matrix.md

docs: $(VENV)/.docs ## the documentation site, in artifacts/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: $(VENV)/.test ## what the gateway costs, beside floors
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-peers: $(VENV)/.test ## the same, beside other gateways too
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/run.py --peers $(ARGS)

# The page that is published: run it on an idle machine.
bench-page: $(VENV)/.test $(VENV)/.bench ## writes the page of figures that is published
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/run.py --peers --json benchmarks/figures.json $(ARGS)
	$(BIN)/python benchmarks/page.py

clean: ## removes what all of these have made
	rm -rf $(VENV) benchmarks/.peers artifacts demo-output .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "imagegate needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# With hashes: what these programs write is signed and published.
$(VENV)/.release: deploy/requirements-release.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV)/.lint: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lint]'
	@touch $@
