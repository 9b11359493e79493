# Two commands matter on a fresh machine: `make demo` and `make test`. Both install what is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE
JOBS ?= 2
DOCS := $(BIN)/typer biaskit.cli.app utils docs --name biaskit --title "biaskit: the commands"
CONSTRAINTS ?= constraints.txt

# lmms-eval, without its dependencies: torchvision among them is not built for every torch. These it needs to run at all.
LMMS := lmms-eval==0.7.3
LMMS_NEEDS := datasets evaluate loguru pytablewriter pytz sacrebleu tenacity

.PHONY: setup demo demo-model test test-faults test-oldest test-lmms check format pages figures docs checkpoints bench bench-gpu

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) torch
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable ".[dev]"
	touch $@

setup: $(VENV)/.installed

demo: setup
	$(RUN) $(BIN)/biaskit demo --out demo-output --force

# The weights of an embedded model, from nothing. Stopped, it goes on where it was. `make demo-model SEED=1` trains another one, and
# `make demo-model ARCHITECTURE=qwen` the sibling on the Qwen2.5-VL class.
SEED ?= 0
ARCHITECTURE ?= llava
OUT ?= demo-model$(if $(filter-out llava,$(ARCHITECTURE)),-$(ARCHITECTURE))$(if $(filter-out 0,$(SEED)),-$(SEED))
demo-model: setup
	$(RUN) $(BIN)/python -m biaskit.demo.training.train --architecture $(ARCHITECTURE) --out $(OUT) --seed $(SEED)

test: setup
	$(RUN) $(BIN)/python -m pytest -n $(JOBS) $(TESTS)

# Hostile files and servers, in numbers that `make test` has time for; `make test-faults FAULTS=full` takes many more. Counts at the end.
test-faults: setup
	$(RUN) FAULTS=$(FAULTS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) tests/faults

# The other end of the range of transformers versions: the tests that run models, without those of our own processes and files.
MODEL_TESTS := tests/calibration/test_calibrate.py tests/engine tests/families tests/pruners/test_shipped_pruners.py \
	tests/validation/test_validation_families.py --ignore=tests/engine/test_threads.py --ignore=tests/families/test_fingerprint.py \
	--ignore=tests/families/test_real_checkpoints.py -k 'not torchrun and not kills'
test-oldest:
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt TESTS="$(or $(TESTS),$(MODEL_TESTS))"

# Benchmarks of lmms-eval, in an environment of their own. The whole of them run where torchvision can be installed: `pip install biaskit[lmms-eval]`.
test-lmms:
	$(MAKE) setup VENV=.venv-lmms
	.venv-lmms/bin/pip install --quiet --constraint $(CONSTRAINTS) $(LMMS_NEEDS)
	.venv-lmms/bin/pip install --quiet --no-deps $(LMMS)
	$(RUN) OMP_NUM_THREADS=1 .venv-lmms/bin/python -m pytest tests/lmms

# Calibration, prefill and selection beside their baselines: a small configuration on the CPU, a few minutes.
BENCH ?= docs/bench/cpu.json
bench: setup
	OMP_NUM_THREADS=1 $(RUN) $(BIN)/biaskit bench all --plan cpu --out $(BENCH) --force

# The same with 7B shapes, random weights, bf16, on a GPU; under ten minutes.
BENCH_GPU ?= docs/bench/gpu.json
bench-gpu: setup
	$(RUN) $(BIN)/biaskit bench all --plan gpu --out $(BENCH_GPU) --force

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(DOCS) --output $(VENV)/commands.md >/dev/null
	diff docs/commands.md $(VENV)/commands.md || (echo "docs/commands.md is stale: run make pages" >&2; false)

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Pages that come from the code.
pages: setup
	$(DOCS) --output docs/commands.md
	$(BIN)/python tests/support/pages.py

# Pictures of docs/ whose numbers lie beside them, after a change of how figures look.
figures: setup
	$(RUN) $(BIN)/python docs/site/figures.py

# The documentation site, in build/site: strict, and without a network once it is installed.
$(VENV)/.docs: pyproject.toml $(CONSTRAINTS) $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable ".[docs]"
	touch $@

docs: $(VENV)/.docs
	$(RUN) $(BIN)/python docs/site/build.py build/site

# docs/checkpoints.md, measured on dwarfs of the real checkpoints, whose small files are in BIASKIT_REAL_CHECKPOINTS; some ten minutes.
checkpoints: setup
	DWARFS=$(VENV)/dwarfs $(BIN)/python $(BIASKIT_REAL_CHECKPOINTS)/build.py
	OMP_NUM_THREADS=1 $(RUN) PYTHONPATH=.:tests/support $(BIN)/python tests/support/checkpoints_table.py $(VENV)/dwarfs
