# `make demo` and `make test` do everything on a fresh machine; both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUTPUT ?= demo_output
EXAMPLE := osmn_tf/examples/meadow
# Workers that share the tests, whole modules each: one more than there are cores, since each waits now and then for files
# and processes; at most four, since each holds networks in memory.
WORKERS = $(shell $(PYTHON) -c "import os; print(min(4, 1 + (os.cpu_count() or 1)))")
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# The workers fill the cores: with more threads of TensorFlow's each they only wait for each other, a tenth longer in all.
# `make test THREADS=` leaves TensorFlow its threads.
THREADS = OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1
# What JAX has compiled for one test it need not compile for the next. (The next run may be on another processor.)
COMPILED := $(CURDIR)/.pytest_cache/jax

# What `make web` builds the page with: the LiteRT files of a preset, or the folder of any other export.
WEB_PRESET ?= osmn_match_lite
WEB_NETWORK ?= saved_models/$(WEB_PRESET)/litert
# Of the page's tests: `unit` (Node), `e2e` (Chromium), or both if empty.
WEB_TESTS ?=
SITE := osmn_tf/web/site

.PHONY: demo test lint web test-web clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[tf]'
	@touch $@

# LiteRT runs the shipped network: the demo needs neither Keras nor TensorFlow. Python compiles what it imports, which is
# little of what is installed.
$(VENV)/.demo-installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[runtime]'
	@touch $@

$(VENV)/.test-installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[tf,jax,runtime,serving,notebook,evaluation,report,snapping,supervision,exr,cvat,hub,dev]'
	@touch $@ $(VENV)/.run-installed $(VENV)/.demo-installed

demo: $(VENV)/.demo-installed
	@echo "Segmenting the three objects of $(EXAMPLE)/meadow.mp4 from the mask of its first frame ..."
	$(BIN)/osmn segment $(EXAMPLE)/meadow.mp4 --mask $(EXAMPLE)/first_mask.png --out $(DEMO_OUTPUT) --force

# In the tests JAX compiles every operation for itself: what XLA does for faster programs takes far longer than they run.
test: $(VENV)/.test-installed lint
	$(THREADS) $(BIN)/python -m pytest $(PARALLEL)
	@rm -rf $(COMPILED)
	KERAS_BACKEND=jax XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true \
		--xla_cpu_use_fusion_emitters=false" \
		JAX_COMPILATION_CACHE_DIR=$(COMPILED) JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.05 \
		JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 $(BIN)/python -m pytest $(PARALLEL) -m backend \
		tests/test_augment.py tests/test_guides.py tests/test_losses.py tests/layers tests/models tests/inference

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The page that `osmn web` serves. Needs Node.js 18 or newer with npm.
web: $(SITE)/index.html

$(SITE)/index.html: web/node_modules/.installed $(WEB_NETWORK)/metadata.json \
		$(wildcard web/src/*.ts web/src/*/*.ts web/public/*) web/build.mjs web/tsconfig.json
	cd web && npm run --silent check && npm run --silent build -- --network $(abspath $(WEB_NETWORK)) \
		--prompts $(abspath saved_models/osmn_prompt_lite)

web/node_modules/.installed: web/package.json web/package-lock.json
	@command -v npm >/dev/null || { echo "make web needs Node.js with npm (Debian: apt-get install nodejs npm)"; exit 1; }
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# The page's own tests, and the page in headless Chromium beside `osmn segment`; that part is skipped without Chromium.
test-web: $(VENV)/.test-installed
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory web && \
		cd web && OSMN_PYTHON=$(abspath $(BIN)/python) npm run --silent test -- $(WEB_TESTS); \
	else echo "make test-web: skipped, there is no npm here"; fi

clean:
	rm -rf $(VENV) $(DEMO_OUTPUT) $(SITE) web/.build web/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
