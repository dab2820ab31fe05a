# Two commands: `make demo` and `make test`. Everything they need is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS ?= dev

.PHONY: demo test build lint bench torture clean

demo: build
	$(BIN)/dissect demo

test: EXTRAS := dev
test: build lint
	$(BIN)/python -m pytest

build: .venv/.built

# Installed in place; rebuilt when a kernel, the build or the dependencies change.
.venv/.built: setup.py pyproject.toml $(wildcard csrc/*.* csrc/*/*.*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "torch>=2.11" torchvision numpy "setuptools>=77" wheel ninja
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[$(EXTRAS)]"
	touch $@

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: build
	$(BIN)/python -m tests.bench

torture: build
	$(BIN)/python -m tests.torture

clean:
	rm -rf .venv build dist *.egg-info dissect/_C*.so
