# `make demo` and `make test` do everything on a fresh machine; both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUTPUT ?= demo_output
EXAMPLE := osmn_tf/examples/meadow
# Workers that share the tests, whole modules each; at most four, since each holds networks in memory.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test lint clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[tf]'
	@touch $@

$(VENV)/.test-installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[tf,jax,runtime,serving,notebook,evaluation,report,dev]'
	@touch $@ $(VENV)/.run-installed

demo: $(VENV)/.run-installed
	@echo "Segmenting the three objects of $(EXAMPLE)/meadow.mp4 from the mask of its first frame ..."
	$(BIN)/osmn segment $(EXAMPLE)/meadow.mp4 --mask $(EXAMPLE)/first_mask.png --out $(DEMO_OUTPUT) --force

# In the tests JAX compiles every operation for itself: without XLA's slow passes that takes half the time.
test: $(VENV)/.test-installed lint
	$(BIN)/python -m pytest $(PARALLEL)
	KERAS_BACKEND=jax XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true" \
		$(BIN)/python -m pytest $(PARALLEL) -m backend \
		tests/test_augment.py tests/test_guides.py tests/test_losses.py tests/layers tests/models tests/inference

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(DEMO_OUTPUT) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
