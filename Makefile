PY := .venv/bin/python
STAMP := .venv/.installed
EXTRAS ?= all

COMPAT := .venv-compat
TOOLS := tests/compat/requirements.txt
TIATOOLBOX := .venv-tiatoolbox

.PHONY: setup demo test nightly check lint bench docs compat compat-tiatoolbox clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || python3 -m venv .venv
	@$(PY) -m pip install -qq --upgrade 'pip>=25.1'
	$(PY) -m pip install -qq -c constraints.txt -e '.[$(EXTRAS)]' --group dev --group docs
	@touch $@

demo: setup
	$(PY) pipelines/demo.py

test: setup
	@echo "eleven minutes or so on two quiet CPU cores; make nightly also runs what takes longer"
	$(PY) -m pytest -q -m "not slow"

nightly: setup
	@echo "every test: half an hour or so on two quiet CPU cores"
	$(PY) -m pytest -q

check: lint test

lint: setup
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports

bench: setup
	$(PY) -m benchmarks.all

# The tutorials run, to make their pictures: a minute or two on two quiet CPU cores.
docs: setup
	$(PY) -m mkdocs build --strict
	@echo "site/index.html"

# The tools that docs/tools.md names, in an environment of their own.
$(COMPAT)/.installed: $(TOOLS)
	@test -x $(COMPAT)/bin/python || python3 -m venv $(COMPAT)
	@$(COMPAT)/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	$(COMPAT)/bin/python -m pip install -qq -r $(TOOLS)
	@touch $@

compat: setup $(COMPAT)/.installed
	$(PY) -m pytest -q -n 0 tests/compat

# An export to TIAToolbox, opened by TIAToolbox itself.
$(TIATOOLBOX)/.installed: tests/compat/tiatoolbox.txt
	@test -x $(TIATOOLBOX)/bin/python || python3 -m venv $(TIATOOLBOX)
	@$(TIATOOLBOX)/bin/python -m pip install -qq -r tests/compat/tiatoolbox.txt
	@touch $@

compat-tiatoolbox: setup $(TIATOOLBOX)/.installed
	$(PY) -m pytest -q -n 0 tests/compat/test_tiatoolbox.py

clean:
	rm -rf build dist demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis
