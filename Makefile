# make mnist   environment, then the main job on real MNIST, to the end
# make test    environment, then lint, types and tests
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# A torch that the interpreter already has is reused: the environment then sees the system's packages.
SITE := $(shell $(PYTHON) -c "import importlib.metadata as m; v=m.version('torch').split('.'); print('--system-site-packages' if (int(v[0]),int(v[1]))>=(2,6) else '')" 2>/dev/null)

.PHONY: mnist test env lint clean

mnist: env
	$(BIN)/ostinato train mnist --output runs/mnist-N

test: env
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

env: $(STAMP)

NATIVE := $(wildcard native/*) CMakeLists.txt pyproject.toml
$(STAMP): $(NATIVE)
	@command -v $${CXX:-c++} >/dev/null || { echo "ostinato needs a C++17 compiler (Debian, Ubuntu: sudo apt-get install g++; Fedora: sudo dnf install gcc-c++; macOS: xcode-select --install)" >&2; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit('ostinato needs Python 3.10 or newer, this is ' + sys.version.split()[0] + '; name another one: make PYTHON=python3.12 ...' if sys.version_info < (3, 10) else 0)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(SITE) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist
