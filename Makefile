# Each target creates .venv, installs torch and the package, and runs; a second call reuses what is there.
# PYTHON chooses the interpreter (>= 3.10), TORCH what pip installs as torch where .venv has none.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
# Without a card to run on, CUDA kernels would only cost build time; set MDPROP_CUDA=1 to build them all the same.
export MDPROP_CUDA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo auto || echo 0)
# Threads that spin while they wait slow one another down where tests share two cores.
export OMP_WAIT_POLICY ?= passive

BUILD_FILES := pyproject.toml setup.py CMakeLists.txt $(shell find cmake csrc -type f -not -path '*/tests/*')
CPP_BUILD := build/cpp-tests
THREAD_BUILD := build/cpp-tests-thread
EMULATED_BUILD := build/emulated
SANITIZED_BUILD := build/sanitized
# A sanitized module in a Python that is not; what the interpreter never frees is no leak of ours.
SANITIZED = PYTHONSAFEPATH=1 ASAN_OPTIONS=detect_leaks=0 \
  LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)"

.PHONY: demo test test-cpp test-python test-emulated sanitize coverage docs check-cuda wheel bench gpu-check report lint format clean

demo: $(VENV)/.demo
	@echo "== training two models on handwritten digits, 300 steps each: a minute or two =="
	$(BIN)/mdprop compare --recipes plain,mdprop --data digits --out runs/demo
	@echo "One seed and 300 steps on ten digits show that everything works, not which recipe is better:"
	@echo "docs/recipes/mdprop.md has measured results. Open runs/demo/report.html for all numbers and plots."

test: test-cpp test-python test-emulated

test-cpp: $(CPP_BUILD)/.built
	$(BIN)/ctest --test-dir $(CPP_BUILD) --output-on-failure -LE emulated

$(CPP_BUILD)/.built: $(VENV)/.dev $(BUILD_FILES) $(wildcard csrc/tests/*)
	$(BIN)/cmake -S . -B $(CPP_BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DMDPROP_TESTS=ON -DMDPROP_SANITIZE=ON --log-level=WARNING
	$(BIN)/cmake --build $(CPP_BUILD)
	touch $@

# The CUDA kernels on the CPU, sanitized: their C++ tests, then the ops' tests with a module of its own that runs them,
# in two processes.
# Every kernel that a build for cards holds must have been run.
test-emulated: export MDPROP_EMULATION_COVERAGE := $(abspath $(EMULATED_BUILD)/coverage.txt)
test-emulated: $(CPP_BUILD)/.built $(EMULATED_BUILD)/.built
	rm -f $(MDPROP_EMULATION_COVERAGE)
	$(BIN)/ctest --test-dir $(CPP_BUILD) --output-on-failure -L emulated -j 2
	processes=; for ops in "multi_batch_norm" "not multi_batch_norm"; do \
	  PYTHONPATH=$(abspath $(EMULATED_BUILD)/lib) $(SANITIZED) $(BIN)/pytest -q -o pythonpath=python_tests -k "$$ops" python_tests/test_op_contract.py \
	    python_tests/ops/test_multi_batch_norm_parts.py & \
	  processes="$$processes $$!"; \
	done; status=0; for process in $$processes; do wait $$process || status=$$?; done; exit $$status
	$(BIN)/python cmake/kernel_record.py --coverage $(MDPROP_EMULATION_COVERAGE)

$(EMULATED_BUILD)/.built: $(VENV)/.dev $(BUILD_FILES) $(shell find mdprop_ext -name '*.py')
	MDPROP_EMULATE=1 MDPROP_SANITIZE=1 MDPROP_CUDA=0 $(BIN)/python setup.py -q build \
	  --build-base $(EMULATED_BUILD)/build --build-lib $(EMULATED_BUILD)/lib
	touch $@

# Named from the least to the best, of which the module takes the last that it can.
define USABLE_ISAS
from mdprop_ext._C import build_info
info = build_info()
print(*info["cpu_isas"][: info["cpu_isas"].index(info["cpu_isa"]) + 1])
endef
export USABLE_ISAS

# The kernels of the CPU, on every instruction set that the processor has: their C++ tests under AddressSanitizer and
# UndefinedBehaviorSanitizer and under ThreadSanitizer, then the ops' tests in Python with a sanitized module.
sanitize: $(CPP_BUILD)/.built $(THREAD_BUILD)/.built $(SANITIZED_BUILD)/.built
	$(BIN)/ctest --test-dir $(CPP_BUILD) --output-on-failure -LE emulated
	$(BIN)/ctest --test-dir $(THREAD_BUILD) --output-on-failure
	export PYTHONPATH=$(abspath $(SANITIZED_BUILD)/lib); \
	for isa in $$($(SANITIZED) $(BIN)/python -c "$$USABLE_ISAS"); do \
	  MDPROP_CPU_ISA=$$isa $(SANITIZED) $(BIN)/pytest -q -o pythonpath=python_tests \
	    python_tests/test_op_contract.py python_tests/ops || exit; \
	done

$(THREAD_BUILD)/.built: $(VENV)/.dev $(BUILD_FILES) $(wildcard csrc/tests/*)
	$(BIN)/cmake -S . -B $(THREAD_BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DMDPROP_TESTS=ON -DMDPROP_SANITIZE=thread --log-level=WARNING
	$(BIN)/cmake --build $(THREAD_BUILD)
	touch $@

$(SANITIZED_BUILD)/.built: $(VENV)/.dev $(BUILD_FILES) $(shell find mdprop_ext -name '*.py')
	MDPROP_SANITIZE=1 MDPROP_CUDA=0 $(BIN)/python setup.py -q build \
	  --build-base $(SANITIZED_BUILD)/build --build-lib $(SANITIZED_BUILD)/lib
	touch $@

test-python: $(VENV)/.dev
	$(BIN)/python -m pytest -q

# Lines of the package that the tests run, subprocesses included; fails below what pyproject.toml asks for.
coverage: $(VENV)/.dev
	mkdir -p build/coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Compiles the CUDA kernels and shows that the module still works under this torch; says so where nvcc is absent.
check-cuda: $(VENV)/.dev
	$(BIN)/python cmake/check_cuda_build.py

# The wheel of a release, for every architecture that the kernels know, and PTX for those to come.
wheel: export TORCH_CUDA_ARCH_LIST ?= 8.0 8.6 8.9 9.0a 10.0 12.0+PTX
wheel: $(VENV)/.dev
	MDPROP_CUDA=1 $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps -w dist .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# On a machine with a GPU: builds for its card, tests, sanitizes and measures, in less than ten minutes; STAGE chooses
# among build,test,sanitize,bench. Uses .venv where it is, else python3 with what is installed there: nothing is fetched.
gpu-check: OUT ?= runs/gpu-check
gpu-check: GPU_PYTHON ?= $(firstword $(wildcard $(BIN)/python) python3)
gpu-check:
	$(GPU_PYTHON) -m benchmarks.gpu_check --out $(OUT) $(if $(STAGE),--stage $(STAGE))

# The documents' tables from benchmarks/results.
report: $(VENV)/.dev
	$(BIN)/python -m benchmarks.report

# The documents and the API reference as a site, in build/site.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')

clean:
	rm -rf $(VENV) build dist runs *.egg-info mdprop_ext/_C.*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.torch:
	@echo "== creating $(VENV) and installing torch there: some minutes, the first time only =="
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet $(TORCH) numpy
	$(BIN)/python -m pip install --quiet 'setuptools>=77' wheel pybind11 ninja cmake
	touch $@

# The kernels, rebuilt when a source of the build changes.
$(VENV)/.built: $(VENV)/.torch $(BUILD_FILES)
	@echo "== compiling the kernels: a minute or more =="
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	touch $@

# What the demo, the development tools and the site need beside the package itself, which .built installs once.
$(VENV)/.demo $(VENV)/.dev $(VENV)/.docs: $(VENV)/.%: $(VENV)/.built cmake/extra_requirements.py
	@echo "== installing what '$*' needs: less than a minute =="
	$(BIN)/python -m pip install --quiet $$($(BIN)/python cmake/extra_requirements.py $*)
	touch $@
