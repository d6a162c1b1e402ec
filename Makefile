# `make demo` and `make test` set up all that they need: an environment, torch, the build.
# Every target can be repeated; what is up to date is not done again.

PYTHON ?= python3
TORCH ?= torch>=2.11
VENV ?= .venv
EPOCHS ?= 12
PYTEST_ARGS ?=
BENCH_ARGS ?=
REPORT ?= out/gpu-check
STEPS ?=
STEP_LIMIT ?=
# What is made here is for this machine: without a GPU, compiling for all of them would be in vain.
export STN_CUDA_BUILD ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo auto || echo cpu)
# With the CUDA kernels' walk on the CPU, for the tests.
export STN_CUDA_WALK ?= 1

python := $(VENV)/bin/python
lint_venv := $(VENV)-lint
lint_bin := $(lint_venv)/bin
pip_install = bin/python -m pip --disable-pip-version-check install
cpp := $(sort $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu'))
# The versions of the linters stand in pyproject.toml, extra "dev".
linters := $(shell sed -n 's/^dev = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '",')

.PHONY: help
help:
	@echo "make demo    train a spatial transformer for a short while, then the quick benchmark"
	@echo "make test    build, and run the tests; PYTEST_ARGS='-m quick -x' chooses among them"
	@echo "make bench   the benchmark; BENCH_ARGS=--full runs the whole matrix"
	@echo "make gpu-check  build, tests, compute-sanitizer and benchmark on a GPU, and a report of them;"
	@echo "                REPORT= STEPS= BENCH_ARGS= STEP_LIMIT= (benchmarks/README.md, On a GPU)"
	@echo "make build   the environment, with stn_cuda in it"
	@echo "make lint    check style and formatting"
	@echo "make format  format the sources"
	@echo "make clean   remove environments, builds and outputs"
	@echo
	@echo "PYTHON=$(PYTHON)       the Python of the environment"
	@echo "TORCH='$(TORCH)'  the torch that pip installs into it"
	@echo "VENV=$(VENV)           the environment's folder"
	@echo "STN_CUDA_BUILD=$(STN_CUDA_BUILD)   cpu where there is no GPU, else auto; see setup.py, which also"
	@echo "                     tells of TORCH_CUDA_ARCH_LIST and MAX_JOBS"

.PHONY: demo
demo: build
	$(python) -m stn_cuda.train --dataset auto --epochs $(EPOCHS) --schedule cosine --out out/demo
	@echo "picture: out/demo/transformed.png"
	$(python) -m benchmarks --quick --out out/benchmarks

.PHONY: test
test: build
	$(python) -m pytest $(PYTEST_ARGS)

.PHONY: bench
bench: build
	$(python) -m benchmarks --out out/benchmarks $(BENCH_ARGS)

# Looks for the GPU first: without one, all that would be built before the script could say so. With
# the lines of the sources, of which compute-sanitizer tells.
.PHONY: gpu-check
gpu-check:
	@nvidia-smi -L >/dev/null 2>&1 || \
	  { echo "make gpu-check needs a GPU, and nvidia-smi finds none" >&2; exit 2; }
	NVCC_APPEND_FLAGS="$$NVCC_APPEND_FLAGS -lineinfo" $(MAKE) build STN_CUDA_BUILD=cuda
	$(python) -m benchmarks.gpu_check --report '$(REPORT)' $(if $(STEPS),--steps '$(STEPS)') \
	  $(if $(BENCH_ARGS),--bench-args='$(BENCH_ARGS)') $(if $(STEP_LIMIT),--step-limit $(STEP_LIMIT))

.PHONY: lint
lint: $(lint_venv)/.stamp
	$(lint_bin)/ruff check .
	$(lint_bin)/ruff format --check .
	$(lint_bin)/clang-format --dry-run -Werror $(cpp)

.PHONY: format
format: $(lint_venv)/.stamp
	$(lint_bin)/ruff check --fix .
	$(lint_bin)/ruff format .
	$(lint_bin)/clang-format -i $(cpp)

.PHONY: clean
clean:
	for venv in $(VENV) $(lint_venv); do [ ! -e $$venv/.stamp ] || rm -rf $$venv; done
	rm -rf build dist *.egg-info out stn_cuda/_build_config.py stn_cuda/_C.*

.PHONY: build
build: build/.stamp

# A stamp says what its environment or build was made from. When that is another now, FORCE has it
# made anew.
.PHONY: FORCE
says = $(strip $(shell cat $(1) 2>/dev/null))
env_key := $(strip $(PYTHON) $(shell $(PYTHON) -V 2>&1) $(TORCH))
lint_key := $(strip $(PYTHON) $(linters))
build_key := $(strip $(abspath $(VENV)) $(env_key) $(STN_CUDA_BUILD) $(TORCH_CUDA_ARCH_LIST) $(STN_CUDA_WALK) $(cpp))
# Empty if the module in the source folder is gone, or was built by someone else after the stamp.
built := $(shell [ build/.stamp -nt stn_cuda/_build_config.py ] && ls stn_cuda/_C.*.so 2>/dev/null)

# An empty environment. It starts with an empty stamp, by which one that was left half made is known
# as ours.
define new_venv
	@if [ -e $(@D) ] && [ ! -e $@ ]; then \
	  echo "$(@D) was not made by make: remove it, or choose another folder with VENV="; exit 1; fi
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit("PYTHON must be 3.10 or later, got %d.%d" % v[:2] if v < (3, 10) else 0)'
	rm -rf $(@D) && mkdir -p $(@D) && touch $@
	$(PYTHON) -m venv $(@D)
endef

ifneq ($(env_key),$(call says,$(VENV)/.stamp))
$(VENV)/.stamp: FORCE
endif
$(VENV)/.stamp:
	$(new_venv)
	$(@D)/$(pip_install) '$(TORCH)' numpy ninja pybind11 'setuptools>=77'
	@printf '%s\n' '$(env_key)' > $@

ifneq ($(lint_key),$(call says,$(lint_venv)/.stamp))
$(lint_venv)/.stamp: FORCE
endif
$(lint_venv)/.stamp:
	$(new_venv)
	$(@D)/$(pip_install) $(linters)
	@printf '%s\n' '$(lint_key)' > $@

ifneq ($(build_key),$(call says,build/.stamp))
build/.stamp: FORCE
endif
ifeq ($(built),)
build/.stamp: FORCE
endif
# An editable install: python started in this folder finds the package here first.
build/.stamp: $(VENV)/.stamp setup.py pyproject.toml stn_cuda/_version.py $(cpp)
	$(VENV)/$(pip_install) --no-build-isolation -e '.[test]'
	$(python) -c 'import stn_cuda; print(stn_cuda.build_info())'
	@mkdir -p $(@D) && printf '%s\n' '$(build_key)' > $@
