# make mnist   environment, then the main job on real MNIST, to the end
# make test    environment, then lint, types and tests, these in two processes; JOBS=4 for four
# make explore property tests with examples that `make test` does not draw; ROUNDS=20 for more of them
# make native-test   the engine's own tests, no Python; another compiler: CXX=clang++ make native-test
# make arm-test      the same for 64-bit ARM, under emulation (apt-get install g++-aarch64-linux-gnu qemu-user)
# make sanitize      the same under AddressSanitizer and UBSan, then under ThreadSanitizer
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
JOBS   ?= 2
ROUNDS ?= 5
STAMP  := $(VENV)/.installed

# A torch that the interpreter already has is reused: the environment then sees the system's packages.
SITE := $(shell $(PYTHON) -c "import importlib.metadata as m; v=m.version('torch').split('.'); print('--system-site-packages' if (int(v[0]),int(v[1]))>=(2,6) else '')" 2>/dev/null)

.PHONY: mnist test explore env lint native-test arm-test sanitize clean

mnist: env
	$(BIN)/ostinato train mnist --output runs/mnist-N

test: env
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

explore: env
	for round in $$(seq $(ROUNDS)); do OSTINATO_EXPLORE=1 $(BIN)/python -m pytest -m hypothesis || exit; done

env: $(STAMP)

NATIVE := $(wildcard native/*.* native/*/*.*) CMakeLists.txt pyproject.toml
$(STAMP): $(NATIVE)
	@command -v $${CXX:-c++} >/dev/null || { echo "ostinato needs a C++17 compiler (Debian, Ubuntu: sudo apt-get install g++; Fedora: sudo dnf install gcc-c++; macOS: xcode-select --install)" >&2; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit('ostinato needs Python 3.10 or newer, this is ' + sys.version.split()[0] + '; name another one: make PYTHON=python3.12 ...' if sys.version_info < (3, 10) else 0)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(SITE) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/mypy

COMPILER := $(if $(filter default,$(origin CXX)),c++,$(CXX))

# $(call native-tests,name,sanitizer,mutated programs and tests): builds and runs them in build/name-compiler;
# ON_TARGET has CMake's arguments for another machine, RUN runs its programs.
define native-tests
	@command -v cmake >/dev/null || { echo "the native tests need CMake 3.18 or newer (sudo apt-get install cmake; pip install cmake)" >&2; exit 1; }
	@cmake -S . -B build/$(1)-$(notdir $(COMPILER)) -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=$(COMPILER) \
	  -DOSTINATO_NATIVE_TESTS=ON -DOSTINATO_WERROR=ON -DOSTINATO_SANITIZE=$(2) $(ON_TARGET) >/dev/null
	@cmake --build build/$(1)-$(notdir $(COMPILER)) --parallel $$(getconf _NPROCESSORS_ONLN) >/dev/null
	$(RUN) build/$(1)-$(notdir $(COMPILER))/native/tests/ostinato_tests $(3)
endef

native-test:
	$(call native-tests,native,,20000)

arm-test: COMPILER := aarch64-linux-gnu-g++
arm-test: ON_TARGET := -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64
arm-test: RUN := qemu-aarch64 -L /usr/aarch64-linux-gnu
arm-test:
	$(call native-tests,native,,2000)

# For ThreadSanitizer what runs in threads; not mutated programs, which alias their arguments as no caller does.
sanitize:
	$(call native-tests,asan,address,10000)
	$(call native-tests,tsan,thread,0 executor)

clean:
	rm -rf $(VENV) build dist
