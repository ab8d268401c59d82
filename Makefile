# Each target makes .venv when it is missing and installs what it needs into it.
# BACKEND is the extra that brings MLX: cpu (Linux CPUs; macOS needs none, and ignores it), cuda12 or cuda13.
PYTHON ?= python3
BACKEND ?= cpu
BIN = .venv/bin

.PHONY: demo page test test-slow lint docs bench bench-all bench-check bench-baseline bench-profile bench-peers clean FORCE

demo: .venv/.examples
	$(BIN)/python examples/digits.py

# README's page: prints its table and writes its picture, docs/curves.png.
page: .venv/.test
	$(BIN)/python tests/page.py

test: .venv/.test
	$(BIN)/python -m pytest

# The tests that take long: kills at each write, signals at each line of the loop, flipped bits; and those of
# hypothesis once more, with more examples.
test-slow: .venv/.test
	$(BIN)/python -m pytest -m 'slow or hypothesis'

lint: .venv/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in site/. A warning is an error.
docs: .venv/.docs
	$(BIN)/mkdocs build --strict --quiet

# The suite: models by frameworks, of which `make bench-peers` installs those that are missing; ARGS="--cases gpt".
SUITE = PYTHONPATH=bench $(BIN)/python -m suite $(ARGS)

bench: .venv/.bench
	$(SUITE)

bench-check: .venv/.bench
	$(SUITE) --check bench/results/baseline.json

bench-baseline: .venv/.bench
	$(SUITE) --out bench/results/baseline.json

bench-profile: .venv/.bench
	PYTHONPATH=bench $(BIN)/python -m suite.profile $(ARGS)

bench-all: .venv/.bench
	$(BIN)/python -m pytest bench --benchmark-only

bench-peers: .venv/.bench-peers

# The version of Python in .venv. A Python that is too old is an error, and a .venv of another version is made anew.
OLD = "mlx_fp needs Python 3.11 or later, and $(PYTHON) is %d.%d: make PYTHON=python3.12" % sys.version_info[:2]

.venv/.python: FORCE
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and $(OLD))'
	@version="$$($(PYTHON) -V)"; [ "$$(cat $@ 2>&1)" = "$$version" ] && [ -x $(BIN)/python ] || \
		{ rm -rf .venv; $(PYTHON) -m venv .venv && echo "$$version" > $@; }

FORCE:

.venv/.lint: pyproject.toml .venv/.python
	$(BIN)/python -m pip install --quiet --editable '.[$(BACKEND),lint,test]'
	touch $@

.venv/.%: pyproject.toml .venv/.python
	$(BIN)/python -m pip install --quiet --editable '.[$(BACKEND),$*]'
	touch $@

clean:
	rm -rf .venv runs site .pytest_cache .mypy_cache .ruff_cache .benchmarks
