# Everything a newcomer needs: `make demo`, then `make test`.
# PYTHON picks the interpreter for a new environment, VENV the environment itself:
#   make test PYTHON=python3.12        make test VENV="$CONDA_PREFIX"

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.llmkernel-installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# One thread for each of the parallel test processes and the workers they start.
test: export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint panel docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z]*\):.*## /  make \1  /p' $(MAKEFILE_LIST)

venv: $(STAMP) ## set up .venv with all dependencies (done by the others where needed)

$(STAMP): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/venv.sh
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: venv ## a worker with the embedded model, answers, a batch, figures
	@$(BIN)/llmkernel demo

test: venv ## every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: venv ## ruff, formatting, mypy strict, generated pages, the panel
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/api_reference.py --check
	$(BIN)/python tools/cli_reference.py --check
	$(BIN)/python tools/magics_reference.py --check
	$(BIN)/python -m benchmarks.plots --check
	sh tools/panel.sh --check

panel: ## bundle the chat panel's front end again (needs npm)
	sh tools/panel.sh

docs: venv ## write the generated pages of docs/ again
	$(BIN)/python tools/api_reference.py
	$(BIN)/python tools/cli_reference.py
	$(BIN)/python tools/magics_reference.py
	$(BIN)/python -m benchmarks.plots

clean: ## remove what was built and the environment
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	@if [ "$(VENV)" = .venv ]; then rm -rf .venv; fi
