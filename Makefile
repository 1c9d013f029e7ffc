# `make demo` and `make test` do everything on a fresh machine; both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUTPUT ?= demo_output
EXAMPLE := osmn_tf/examples/meadow

.PHONY: demo test test-jax lint clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[tf]'
	@touch $@

$(VENV)/.test-installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[tf,jax,notebook,report,dev]'
	@touch $@ $(VENV)/.run-installed

demo: $(VENV)/.run-installed
	@echo "Segmenting the three objects of $(EXAMPLE)/meadow.mp4 from the mask of its first frame ..."
	$(BIN)/osmn segment $(EXAMPLE)/meadow.mp4 --mask $(EXAMPLE)/first_mask.png --out $(DEMO_OUTPUT) --force

test: $(VENV)/.test-installed lint
	$(BIN)/python -m pytest
	KERAS_BACKEND=jax $(BIN)/python -m pytest -m backend tests/test_guides.py tests/test_losses.py tests/layers tests/inference

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(DEMO_OUTPUT) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
