# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
# The CPU commands share the cores among ranks, one thread each; set it to use more.
export OMP_NUM_THREADS ?= 1

.PHONY: demo demo-finetune test slow check gpu gpu-figures clean

# Raw text to a trained model and a few of its words: CPU only, two ranks.
demo: export CUDA_VISIBLE_DEVICES =
demo: .venv/installed
	$(BIN)/python -m framework.prepare
	$(BIN)/torchrun --standalone --nproc-per-node 2 -m framework.pretrain experiment=demo
	$(BIN)/python -m framework.generate model.path=runs/demo/model prompt="It is a truth universally acknowledged"

# The demo's model through classification, instruction and preference, each evaluated.
TUNE = $(BIN)/torchrun --standalone --nproc-per-node 2 -m framework.finetune
demo-finetune: export CUDA_VISIBLE_DEVICES =
demo-finetune: .venv/installed
	@test -e runs/demo/model/config.json || { echo "make demo-finetune: runs/demo/model is missing; run make demo first"; exit 2; }
	$(TUNE) experiment=demo_topics
	$(TUNE) experiment=demo_definitions
	$(TUNE) experiment=demo_preferences
	$(BIN)/torchrun --standalone --nproc-per-node 2 -m framework.evaluate output=runs/demo-evaluation \
		'models=[runs/demo/model,runs/demo-definitions/model,runs/demo-preferences/model]' \
		perplexity.data=data/samples bias.templates=true

# A file's tests share what its first one made, so a file stays with one process.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

# Twice, as Triton runs kernels either on a GPU or, with the variable, in its interpreter.
test: .venv/installed
	$(PYTEST)
	TRITON_INTERPRET=1 $(PYTEST) tests/interpreter

# The proofs that take minutes each.
slow: .venv/installed
	$(PYTEST) -m slow
	TRITON_INTERPRET=1 $(PYTEST) -m slow tests/interpreter

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile -e '.[development]' -c constraints.txt
	touch $@

# On a machine with a GPU, which may have torch, triton and pytest and no .venv: kernels/README.md says what to bring.
ON_GPU = $(if $(wildcard .venv/installed),$(BIN)/python,$(PYTHON))
gpu:
	@$(ON_GPU) -c "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'make gpu: torch sees no GPU here')"
	$(ON_GPU) -m pytest -v -m gpu -n 4 tests/gpu

# What goes into benchmarks/RESULTS.md, each within ten minutes, e.g. `make -k gpu-figures FIGURES=attention OUT=figures`.
FIGURES ?= attention cross_entropy elementwise train_step
OUT ?= figures
AT_MOST := timeout 590
gpu-figures: $(FIGURES:%=figure-%)
figure-%: SHELL := bash
figure-%:
	mkdir -p $(OUT)
	set -o pipefail; $(AT_MOST) $(ON_GPU) -m benchmarks.$* --output $(OUT) 2>&1 | tee $(OUT)/$*.txt
figure-train_step:
	mkdir -p $(OUT)
	set -o pipefail; $(AT_MOST) $(ON_GPU) -m torch.distributed.run --standalone --nproc-per-node 1 \
		-m benchmarks.train_step 2>&1 | tee $(OUT)/train_step.txt

# Removes what was made here: the environment, prepared data and runs.
clean:
	rm -rf .venv data runs
