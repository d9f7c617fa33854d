PYTHON ?= python3
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: reproduce test retry install lint format docs-images clean

reproduce: $(INSTALLED)
	$(BIN)/snakemake --cores $(CORES)
	@echo "Report: $(CURDIR)/results/report/index.html"

test: $(INSTALLED)
	$(BIN)/python -m pytest

retry: $(INSTALLED)
	$(BIN)/morebench retry --cores $(CORES)

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/morebench environments
	touch $(INSTALLED)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

# The figures that the README and docs show, from the default run.
docs-images:
	mkdir -p docs/images
	cp results/figures/pbmc68k_batches/scores-all-integration.png docs/images/scores.png
	cp results/figures/pbmc68k_batches/umap-all.png docs/images/umap.png

clean:
	find results -mindepth 1 ! -name README.md -delete
	rm -rf .snakemake
