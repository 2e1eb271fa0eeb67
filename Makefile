# `make demo` and `make test` do all the set-up themselves; .venv is reused while pyproject.toml is unchanged.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo docs examples notebooks study test long faults fuzz lint clean

$(VENV)/.current: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@# setuptools warns of every editable installation
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.current
	$(BIN)/bayes-panns demo -o demo

# The documentation site, into site/: open site/index.html. It needs no network to be read, and any warning is an error.
docs: $(VENV)/.current
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# Every example in full, into examples/executed: what a script prints, a notebook as a page and as .ipynb. What is there
# and newer than its source is kept; `make examples/executed/anatomy.html` runs that one alone.
EXECUTED := examples/executed
SCRIPTS := $(filter-out own_guide,$(basename $(notdir $(wildcard examples/*.py))))
NOTEBOOKS := $(basename $(notdir $(wildcard examples/notebooks/*.py)))

examples: $(SCRIPTS:%=$(EXECUTED)/%.txt) notebooks

notebooks: $(NOTEBOOKS:%=$(EXECUTED)/%.html)

$(EXECUTED)/%.txt: examples/%.py | $(VENV)/.current
	mkdir -p $(@D)
	$(BIN)/python $< > $@.part
	mv $@.part $@

$(EXECUTED)/%.ipynb: examples/notebooks/%.py | $(VENV)/.current
	mkdir -p $(@D)
	$(BIN)/jupytext --execute --run-path . --to ipynb --output $@ $<

$(EXECUTED)/%.html: $(EXECUTED)/%.ipynb
	$(BIN)/jupyter nbconvert --to html $<

.SECONDARY:

# The transfer study. docs/transfer-study.md says how to make its stores and upstream posteriors. It takes hours; if it is
# stopped, the same command continues.
study: $(VENV)/.current
	$(BIN)/python -m benchmarks transfer-study --data stores/esc10.h5 --near stores/near.h5 --speech stores/speech.h5 \
		--flip runs/us8k-both-flip --det runs/us8k-both-det -o runs/study --results benchmarks/results/transfer-study

# Two processes of one thread each are faster than one of two: most of what a test computes is small.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not long"

# The tests that take a chain of an exact posterior, or a study in small: some minutes more. CI runs them after the others.
long: $(VENV)/.current
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m long

# Kills, signals, full disks, flipped bits: every command under faults, of this SEED. A tenth of them with QUICK=1.
SEED ?= 0
faults: $(VENV)/.current
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --seed $(SEED) $(if $(QUICK),--quick)

# 2,400 damaged files of every kind through the commands, on two cores; `make long` has 150 of them. For a part:
# `make fuzz FUZZ="--kind wav --inputs 100"`.
fuzz: $(VENV)/.current
	$(BIN)/python -m tests.fuzz $(FUZZ)

lint: $(VENV)/.current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build demo site *.egg-info
