# make demo            the whole life of a forecast, on data the package carries   (ARGS=--once ends by itself)
# make test            the test suite; with KAFKA_HOME set, on a real Kafka too
# make check           style, types, import rules
# make bench           the figures of the README; needs KAFKA_HOME, and TIDECAST_ANCHORS for the comparison
# make clean           forget the environment and everything the demo wrote
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo test check bench clean

demo: $(VENV)/.installed
	@$(BIN)/tidecast demo $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/serving.py $(ARGS)

clean:
	rm -rf $(VENV) .tidecast build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.installed: pyproject.toml requirements.lock
	@echo "installing into $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[train,dev]'
	@touch $@
