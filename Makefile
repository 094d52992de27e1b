# Recipes for post-training language models. `make help` lists the targets.
# SCALE, MODEL, DATA, HARDWARE, SITE, SET and STEP are passed to the launcher as environment variables, never through a shell.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Allowed command-line variables: ours, and environment variables (names with an underscore, such as HF_HUB_OFFLINE).
VARIABLES := SCALE MODEL DATA HARDWARE SITE SET OUT FRESH RUN SEEDS SUBJECT ONLY STEP GRID DEVICE DRY_RUN SLURM ALLOW ARGS
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $v)),$(filter-out $(VARIABLES) MAKE% SHELL -%,$v)))
$(foreach v,$(GIVEN),$(if $(and $(findstring _,$v),$(filter-out DRY_%,$v)),,$(error $v: no such variable; known: $(VARIABLES))))

# A variable that a target does not read is an error: otherwise a wrong DRY_RUN=1 would run the recipe.
# Recipe names may contain spaces, so not every word is a target.
GOALS := $(foreach g,$(MAKECMDGOALS),$(if $(or $(findstring /,$g),$(filter demo list status logs cancel report mini-model,$g)),$g))
only = $(if $(filter command,$(origin $1)),$(foreach g,$(filter-out $2,$(GOALS)),$(error $1: $g does not read it (`make help`))))
$(call only,STEP,data/%)
$(call only,GRID,sweep/%)
$(foreach v,SEEDS ONLY,$(call only,$v,study/%))
$(call only,SLURM,study/% sweep/%)
$(call only,DRY_RUN,sbatch/% study/% sweep/%)
$(call only,FRESH,$(filter-out list status show/% render/% sbatch/% stage/% study/% sweep/%,$(GOALS)))
$(call only,RUN,logs cancel report)
$(call only,DEVICE,env/%)
$(call only,SUBJECT,mini-model)

override SCALE := $(value SCALE)
override MODEL := $(value MODEL)
override DATA := $(value DATA)
override HARDWARE := $(value HARDWARE)
override SITE := $(value SITE)
override SET := $(value SET)
override OUT := $(value OUT)
override RUN := $(value RUN)
override SEEDS := $(value SEEDS)
override SUBJECT := $(value SUBJECT)
override ONLY := $(value ONLY)
override STEP := $(value STEP)
override GRID := $(value GRID)
override DEVICE := $(value DEVICE)
# Write bytecode in the environments: without it, imports of trainers take seconds.
export PYTHONDONTWRITEBYTECODE :=
export SCALE MODEL DATA HARDWARE SITE SET OUT RUN SEEDS ONLY STEP GRID

CORE = "$$(python3 -m launchers.envs core)"
LAUNCH = $(CORE) -m launchers
OPTIONS = --make-variables $(if $(OUT),--out "$$OUT") $(if $(FRESH),--fresh)
RECIPES := $(patsubst recipes/%.yaml,%,$(filter-out recipes/_% %/data.yaml %/study.yaml %/mini.yaml %.mini.yaml,$(foreach f,$(wildcard recipes/*/*.yaml),$(if $(filter _%,$(notdir $f)),,$f))))
q = '$(subst ','\'',$(1))'

.PHONY: help list demo test test-full check status logs cancel python fix schema mini-model report bench bench/launcher bench/rewards bench/verl bench/skill_mix bench/data_prep bench/chat bench/scale $(RECIPES)

help:  ## this text
	@printf '%s\n\n' 'Recipes for post-training language models on LlamaFactory, verl and torchtune.'
	@printf '  make %-30s %s\n' '<family>/<recipe>' 'run a recipe: data, train, eval, report'
	@awk -F ':.*## ' '/^[a-z][a-z\/%-]*:.*## / {sub("%", $$1 ~ /^env/ ? "<backend>" : $$1 ~ /^(study|agreement)/ ? "<family>" : "<family>/<recipe>", $$1); printf "  make %-30s %s\n", $$1, $$2}' Makefile
	@printf '\n%s\n' 'Overrides: SCALE=mini  MODEL=…  DATA=…  HARDWARE=…  SITE=…  SET="train.learning_rate=2e-5 eval.n=4"  OUT=…  FRESH=1'
	@printf '%s\n' 'Recipes:   $(RECIPES)'

list:  ## every recipe, with its trainer, model and hardware
	@$(LAUNCH) list

demo:  ## two mini recipes on a CPU: rejection sampling and SFT, then GRPO, each with a report (about 10 minutes)
	@for recipe in min_o1/sft_short min_o1/grpo; do \
	  SCALE=mini $(LAUNCH) run $$recipe --make-variables $(if $(OUT),--out "$$OUT") $(if $(FRESH),--fresh); done

$(RECIPES):
	@$(LAUNCH) run $@ $(OPTIONS)
data/%:  ## only the training data (STEP=<step>: up to that step, and print its first rows)
	@$(LAUNCH) data $(call q,$*) $(OPTIONS)
tokens/%:  ## the first training rows as the trainer tokenises them: tokens with and without loss
	@$(LAUNCH) tokens $(call q,$*) $(OPTIONS)
train/%:  ## only the training
	@$(LAUNCH) train $(call q,$*) $(OPTIONS)
eval/%:  ## only the evaluation (MODEL=…: of any model, untrained, with the recipe's benchmarks and sampling)
	@$(LAUNCH) eval $(call q,$*) $(OPTIONS)
show/%:  ## the resolved recipe, each value with its file and line
	@$(LAUNCH) show $(call q,$*) --make-variables
plan/%:  ## dry run: steps, batch, memory, exact command lines
	@$(LAUNCH) plan $(call q,$*) $(OPTIONS)
render/%:  ## write native configs and scripts, start nothing
	@$(LAUNCH) render $(call q,$*) --make-variables $(if $(OUT),--out "$$OUT")
sbatch/%:  ## submit to Slurm, one job per part (DRY_RUN=1 only prints the submit lines)
	@$(LAUNCH) submit $(call q,$*) --make-variables $(if $(OUT),--out "$$OUT") $(if $(DRY_RUN),--dry-run)
stage/%:  ## on a login node: download environments, models and rows for compute nodes without a network
	@$(LAUNCH) stage $(call q,$*) --make-variables $(if $(OUT),--out "$$OUT")
study/%:  ## an experiment: the family's cells × seeds, one report (SEEDS=0,1,2 ONLY=cell,cell; SLURM=1, DRY_RUN=1)
	@$(LAUNCH) study $(call q,$*) --make-variables $(if $(OUT),--out "$$OUT") \
	  $(if $(SEEDS),--seeds "$$SEEDS") $(if $(ONLY),--only "$$ONLY") $(if $(SLURM),--slurm) $(if $(DRY_RUN),--dry-run)
sweep/%:  ## GRID="train.learning_rate=1e-6,3e-6 seed=1,2,3": grid search, one report (SLURM=1: as arrays; DRY_RUN=1)
	@$(LAUNCH) sweep $(call q,$*) --make-variables $(if $(OUT),--out "$$OUT") $(if $(SLURM),--slurm) $(if $(DRY_RUN),--dry-run)
agreement/%:  ## DATA=<pairs>: agreement of each reward with human preferences (OUT=<path>, ARGS="--reward_models name=url")
	@$(CORE) -m data_prep.evaluation.agreement --data "$${DATA:?set the pairs, such as DATA=pairs.jsonl}" --paper recipes/$(call q,$*)/_paper.yaml --out "$${OUT:-runs/agreement}" $(ARGS)
.DEFAULT:
	@$(LAUNCH) run $(call q,$@) $(OPTIONS)

status:  ## every run: state, step, last heartbeat, job, logs
	@$(LAUNCH) status $(if $(OUT),--out "$$OUT")
logs:  ## RUN=<dir>: the last lines of its newest logs, and recognised failures (ARGS="--lines 50")
	@$(LAUNCH) logs "$$RUN" $(ARGS)
cancel:  ## RUN=<dir>: cancel its Slurm jobs
	@$(LAUNCH) cancel "$$RUN"
report:  ## RUN=<dir>: rewrite the run's report.html
	@$(LAUNCH) report "$$RUN"

python:  ## the core environment's interpreter (built if missing)
	@python3 -m launchers.envs core
env/%:  ## build an environment and print its interpreter (DEVICE=cuda: on a machine without a GPU)
	@python3 -m launchers.envs $(call q,$*) $(if $(DEVICE),--device $(call q,$(DEVICE)))

mini-model:  ## retrain a shipped mini model from scratch (SUBJECT=arithmetic, functions or both, OUT=…)
	@out=$${OUT:-runs/mini-model}; python3 -m launchers.envs vllm >/dev/null; \
	  $(CORE) -m data_prep.families.mini.build --python "$$(python3 -m launchers.envs llamafactory)" --out "$$out" \
	  --subject $(call q,$(or $(SUBJECT),arithmetic))

test:  ## all tests except the long ones, including the real trainers (two test files in parallel)
	@python3 tests/system_packages.py && $(CORE) -m pytest -m 'not full' -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)
test-full:  ## also the long tests: repeated kills, complete mini recipes, rebuilding the models
	@python3 tests/system_packages.py && $(CORE) -m pytest $(ARGS)
bench: bench/launcher bench/rewards bench/verl bench/skill_mix bench/data_prep bench/chat bench/scale  ## benchmarks of the launcher, rewards, RL steps and data steps, with alternatives for comparison
bench/launcher:  ## CPU time of each command
	@$(CORE) tests/bench/launcher.py
bench/rewards:  ## every reward compared with alternatives (builds the environment `bench`)
	@python=$$(python3 -m launchers.envs bench --device cpu); for topic in text math sandbox code cpp workers; do \
	  PYTHONPATH=. "$$python" tests/bench/$${topic}_reward.py; done
bench/verl:  ## online RL on a CPU: start-up, step and reward time, compared with verl's v1 trainer (6 minutes)
	@PYTHONPATH=. $(CORE) tests/bench/verl_step.py
bench/skill_mix:  ## grading C++ candidates, compared with compiling from scratch, and under load (ARGS="12 4": questions, of them under load)
	@PYTHONPATH=. $(CORE) tests/bench/skill_mix.py $(ARGS)
bench/data_prep:  ## data steps on 100,000 and 1,000,000 rows (ARGS=10000 sets the number), compared with plain scripts, and the API client
	@PYTHONPATH=. $(CORE) tests/bench/data_steps.py $(ARGS)
	@PYTHONPATH=. $(CORE) tests/bench/llm_client.py
bench/chat:  ## selecting 5,000 of 50,000 prompts, preparing prompts (ARGS=<parquet of chat prompts>), a reward model server
	@$(CORE) -m tests.bench.chat $(ARGS)
bench/scale:  ## engines on 10,000 to 1,000,000 rows with more workers, and save_every under preemption (ARGS="preemption 12 90 300 6 2000")
	@PYTHONPATH=. $(CORE) tests/bench/scale.py $(ARGS)
lint:  ## ruff, mypy and every recipe
	@python3 tests/system_packages.py && $(CORE) -m ruff check . && $(CORE) -m ruff format --check . && $(CORE) -m mypy && $(LAUNCH) check
check: lint  ## lint, shellcheck over rendered scripts, and every native config by the trainer's own parser (in `make test`, too)
	@$(CORE) -m pytest -q tests/launchers/test_scripts.py tests/launchers/test_verl_checks_recipes.py \
	  tests/launchers/test_llamafactory.py tests/plugins/test_torchtune.py \
	  -k 'test_scripts or verls_own_checks or own_argument_classes or torchtune_accepts'
fix:  ## apply ruff's fixes and formatting
	@$(CORE) -m ruff check --fix . ; $(CORE) -m ruff format .
schema:  ## regenerate configs/recipe.schema.json, configs/data.schema.json and configs/README.md
	@$(LAUNCH) schema > configs/recipe.schema.json && $(LAUNCH) schema --markdown > configs/README.md
	@$(CORE) -m data_prep schema > configs/data.schema.json
