PYTHON ?= python3
CORES ?= all
# Test files at a time: each may start a run on two cores and take 5 GB.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := .venvs/tools
HASHED := envs/hashed
TORCH ?= torch

.PHONY: reproduce test cluster retry install install-hashed hashes audit lint format docs-images clean

reproduce: $(INSTALLED)
	$(BIN)/snakemake --cores $(CORES)
	@echo "Report: $(CURDIR)/results/report/index.html"

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --no-loadscope-reorder

# On a Slurm that the tests start themselves: root, and Debian's slurm-wlm and munge.
cluster: $(INSTALLED)
	$(BIN)/python -m pytest tests/cluster --durations=5

retry: $(INSTALLED)
	$(BIN)/morebench retry --cores $(CORES)

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/morebench environments
	touch $(INSTALLED)

# As install, but pip takes no file whose SHA-256 is not listed; TORCH=torch-cpu for CPUs.
install-hashed:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $(HASHED)/build.txt
	$(BIN)/python -m pip install --quiet --require-hashes --no-build-isolation \
		--requirement $(HASHED)/main.txt --requirement $(HASHED)/$(TORCH).txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/morebench environments
	touch $(INSTALLED)

$(TOOLS)/.installed: $(HASHED)/tools.txt
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --require-hashes --requirement $(HASHED)/tools.txt
	touch $@

# The files of envs/hashed from the pins, and known vulnerabilities of what they name. Strict:
# a package that the service does not know counts as not audited, and that is a failure.
hashes: $(TOOLS)/.installed
	$(TOOLS)/bin/python $(HASHED)/make.py

audit: $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
		$(foreach name,main torch harmony_published tools,--requirement $(HASHED)/$(name).txt)

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
