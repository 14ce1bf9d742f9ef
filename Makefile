PY := .venv/bin/python
STAMP := .venv/.installed
EXTRAS ?= all

.PHONY: setup demo test nightly check lint bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || python3 -m venv .venv
	@$(PY) -m pip install -qq --upgrade 'pip>=25.1'
	$(PY) -m pip install -qq -c constraints.txt -e '.[$(EXTRAS)]' --group dev
	@touch $@

demo: setup
	$(PY) pipelines/demo.py

test: setup
	@echo "ten minutes or so on two quiet CPU cores; make nightly also runs what takes longer"
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

clean:
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
