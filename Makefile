# The contributor's few acts. CI runs .ci/run, which runs the README's own commands.
BIN := .venv/bin
UV_VERSION := 0.13.8

.PHONY: setup demo test slow bench check format

setup:
	python3 -m venv .venv && $(BIN)/pip install -q uv==$(UV_VERSION) && $(BIN)/uv pip install -q --python .venv -e '.[dev]'

demo:
	$(BIN)/quant demo

test:
	$(BIN)/pytest -n auto

slow:
	$(BIN)/pytest -m slow

bench:
	$(BIN)/pytest -m bench -s

check:
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

format:
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .
