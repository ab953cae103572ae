# make demo            the whole pipeline live in the terminal, on bundled data   (ARGS=--once exits by itself)
# make test            the tests, in a few minutes; with KAFKA_HOME set, on a real Kafka too
# make test-all        the slow tests as well: SIGKILLs, full trainings, end-to-end runs, properties with all examples
# make check           style, types, import contracts
# make test-serving    serving from an environment without torch and polars, from a file and from an MLflow server
# make faults          fault injection on three real brokers, in about 40 minutes; needs KAFKA_HOME, TOXIPROXY (a folder
#                      with toxiproxy-server) and Debian's faketime   (ARGS="--only kill")
# make bench           all figures of speed, ours and others', into docs/speed.json and its picture; needs KAFKA_HOME,
#                      and TIDECAST_ANCHORS for the others   (ARGS="--only latency"; ARGS=--help has the parts)
#                      (benchmarks/ has more: training.py, life.py, replay.py, swaps.py)
# make screenshots     the README's pictures of the page, from a demo of its own; needs Debian's chromium
# make gpu             parity, model swaps, memory, speed and training on an NVIDIA GPU, into docs/gpu.md, in 8 minutes;
#                      skipped without a GPU   (PYTHON=... one that has torch; WHEELS=DIR installs from a folder)
# make audit           known vulnerabilities of the pinned dependencies (asks PyPI), and an SBOM in sbom.json
# make lock            regenerate requirements.lock from a fresh environment
# make clean           remove the environments and everything the demo wrote
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
WHEELS ?=

.PHONY: demo test test-all check test-serving faults bench screenshots gpu audit lock clean

demo: $(VENV)/.installed
	@$(BIN)/tidecast demo $(ARGS)

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --hypothesis-profile quick $(ARGS)

test-all: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-serving: $(VENV)/.installed
	@rm -rf $(VENV)-serving && $(PYTHON) -m venv $(VENV)-serving
	@$(VENV)-serving/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock '.[dashboard]'
	! $(VENV)-serving/bin/python -c "import torch"
	! $(VENV)-serving/bin/python -c "import polars"
	TIDECAST_SERVING_PYTHON=$(CURDIR)/$(VENV)-serving/bin/python \
	  $(BIN)/python -m pytest tests/integration -k "neither_torch or registry_server or no_text" $(ARGS)

faults: $(VENV)/.installed
	$(BIN)/python tests/faults/matrix.py $(ARGS)

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/bench.py --save docs/speed.json $(ARGS)

screenshots: $(VENV)/.installed
	PYTHONPATH=tests/support $(BIN)/python benchmarks/screenshots.py

gpu:
	@$(PYTHON) benchmarks/gpu_environment.py $(VENV)-gpu --wheels "$(WHEELS)"

audit:
	@rm -rf $(VENV)-audit && $(PYTHON) -m venv $(VENV)-audit
	@$(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit cyclonedx-bom
	$(VENV)-audit/bin/cyclonedx-py requirements requirements.lock --output-file sbom.json
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements.lock

# torch is pinned by hand: other versions pull in gigabytes of CUDA on Linux.
lock:
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -e '.[train,dashboard,compare,fast,dev]'
	@(echo "# What the environment of development and CI holds: made by 'make lock', used as constraints."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//; s/ @ .*//') > requirements.lock
	@touch $(VENV)/.installed

clean:
	rm -rf $(VENV) $(VENV)-serving $(VENV)-audit $(VENV)-gpu $(VENV)-quix sbom.json .tidecast build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.installed: pyproject.toml requirements.lock
	@echo "installing into $(VENV), once: about 400 MB, a few minutes" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[train,dashboard,compare,fast,dev]'
	@touch $@
