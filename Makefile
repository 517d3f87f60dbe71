# Every target sets up what it needs: an environment in .venv (by uv where there is one, else by
# venv and pip) with graphc installed editable, again only when pyproject.toml has changed.

VENV    := .venv
RUN     := $(VENV)/bin/python
WORKERS ?= 2
OUT     ?= out
UV      := $(shell command -v uv 2>/dev/null)

# Where a shell exports these, NumPy's BLAS runs at half its speed: no measure of anything.
unexport OPENBLAS_CORETYPE OPENBLAS_L2_SIZE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
# What depends on the CPU that code is made for.
AVX512 := tests/codegen tests/kernels tests/ops tests/passes tests/nn tests/train tests/fuzz \
    tests/formats tests/runtime tests/control/test_small_loops.py tests/test_program.py \
    tests/test_bfloat16.py tests/test_streaming.py

.PHONY: help demo test test-slow test-avx512 lint ruff mypy bench bench-micro bench-scaling gpu-check tf1-semantics docs clean

help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.with-base ## train LeNet on handwritten digits, save it, draw the result (ARGS=...)
	@mkdir -p $(OUT)
	$(RUN) examples/03_lenet_mnist.py --picture $(OUT)/demo.png --save $(OUT)/lenet.graphc $(ARGS)

test: $(VENV)/.with-test ## run the tests (PYTEST_ARGS=..., WORKERS=2)
	$(RUN) -m pytest -n $(WORKERS) -m "not slow" $(PYTEST_ARGS)

test-slow: $(VENV)/.with-test ## run the tests that take long (PYTEST_ARGS=...)
	$(RUN) -m pytest -n $(WORKERS) -m slow $(PYTEST_ARGS)

test-avx512: $(VENV)/.with-test ## run the tests as on a CPU with AVX-512, emulated where there is none
	$(RUN) -m pytest -n $(WORKERS) -m "not slow" --emulate-avx512 $(or $(PYTEST_ARGS),$(AVX512))

lint: ruff mypy ## check style and types

ruff: $(VENV)/.with-dev
	$(RUN) -m ruff check .

mypy: $(VENV)/.with-dev
	$(RUN) -m mypy

bench: $(VENV)/.with-examples ## measure training and inference beside eager and the peers (ARGS=...)
	$(RUN) benchmarks/bench.py $(ARGS)

bench-micro: $(VENV)/.with-base ## measure call overhead, compile time and kernels (ARGS=...)
	$(RUN) benchmarks/micro.py $(ARGS)

bench-scaling: $(VENV)/.with-examples ## measure how cost grows with batch, width, depth, length (ARGS=...)
	$(RUN) benchmarks/scaling.py $(ARGS)

gpu-check: ## run the CUDA tests and the table of targets where there is a GPU (PYTHON=..., ARGS=...)
	$(or $(PYTHON),python3) benchmarks/gpu.py $(ARGS)

tf1-semantics: $(VENV)/.with-base ## show where behaviour differs from TensorFlow 1.15
	$(RUN) tests/tf1/semantics.py $(ARGS)

docs: $(VENV)/.with-base ## generate the op reference from the registry
	$(RUN) docs/generate.py $(ARGS)

clean: ## remove the environment, builds and tool caches
	rm -rf $(VENV) build dist *.egg-info $(OUT) .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. A name on PATH may be a shim that does not run, so each candidate is tried.

CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python)
IS_RECENT  := import sys, venv; sys.exit(sys.version_info < (3, 11))

$(RUN):
	@set -e; found=; \
	for python in $(CANDIDATES); do \
	    if "$$python" -c '$(IS_RECENT)' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	rm -rf $(VENV); \
	if [ -n "$(UV)" ]; then \
	    echo "make: creating $(VENV) with uv"; \
	    "$(UV)" venv --quiet --python "$${found:->=3.11}" $(VENV); \
	elif [ -z "$$found" ]; then \
	    echo "make: graphc needs Python 3.11 or newer; tried: $(CANDIDATES)." >&2; \
	    echo "make: install one, or uv, or name it: make PYTHON=/path/to/python3 ..." >&2; \
	    exit 1; \
	else \
	    echo "make: creating $(VENV) with $$found"; \
	    "$$found" -m venv $(VENV) || { rm -rf $(VENV); \
	        echo "make: $$found cannot create an environment with pip in it;" >&2; \
	        echo "make: install your system's python3-venv package, or uv." >&2; exit 1; }; \
	fi

ifneq ($(UV),)
INSTALL := $(UV) pip install --quiet --python $(RUN)
else
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check
endif

$(VENV)/.with-base: pyproject.toml | $(RUN)
	@echo "make: installing graphc"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.with-%: pyproject.toml | $(RUN)
	@echo "make: installing graphc[$*]"
	@$(INSTALL) --editable '.[$*]'
	@touch $@ $(VENV)/.with-base

# The dev extra contains the test extra.
$(VENV)/.with-dev: pyproject.toml | $(RUN)
	@echo "make: installing graphc[dev]"
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.with-test $(VENV)/.with-base
