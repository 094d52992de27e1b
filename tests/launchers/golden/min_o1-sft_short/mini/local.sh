#!/usr/bin/env bash
# min_o1/sft_short at scale mini. Runs by itself, whole or in part: bash local.sh [data] [train] [eval] [report]
# After a kill the same command resumes from the last whole shard or checkpoint.
# shellcheck disable=SC2016  # what stands in single quotes is meant to the letter
set -euo pipefail

RUN=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cd -- <repo>
ATTEMPT=$(date +%Y%m%dT%H%M%S)
SCRIPT_PID=$$
export RUN ATTEMPT SCRIPT_PID
export PYTHONPATH=<repo>
export PYTHONDONTWRITEBYTECODE=''
export HF_HUB_DISABLE_TELEMETRY=1
export DO_NOT_TRACK=1
export VLLM_NO_USAGE_STATS=1
export OMP_NUM_THREADS=1
export CUDA_VISIBLE_DEVICES=''
export TOKENIZERS_PARALLELISM=false

# One process at a time works on a run; the launcher holds the lock for the script that it starts.
if [ -z "${POSTTRAIN_LOCK_HELD-}" ]; then
  exec {lock}>"$RUN/.lock"
  flock -n "$lock" || { echo "error: another process is working on this run: $RUN" >&2; exit 2; }
fi

# Pinned environments, built from their locks where they are missing, by the parts that need them.
CORE=$(python3 -m launchers.envs core)

# Logs the command, records its time and memory in events.jsonl, and takes its children with it when it dies.
phase() { "$CORE" -m launchers.run.supervise "$RUN" "$@"; }

part_data() {
  VLLM=$(python3 -m launchers.envs vllm --device cpu)
  phase data '' -- "$CORE" -m data_prep run "$RUN"/data/train.json --steps curriculum
  phase data '' -- "$VLLM" -m data_prep run "$RUN"/data/train.json --steps generate
  phase data '' -- "$CORE" -m data_prep run "$RUN"/data/train.json --steps score,select,dedup,export
  phase data ungraded -- "$CORE" -m data_prep run "$RUN"/controls/ungraded/data/train.json --steps curriculum
  phase data ungraded -- "$VLLM" -m data_prep run "$RUN"/controls/ungraded/data/train.json --steps generate
  phase data ungraded -- "$CORE" -m data_prep run "$RUN"/controls/ungraded/data/train.json --steps score,dedup,export
}

part_train() {
  LLAMAFACTORY=$(python3 -m launchers.envs llamafactory --device cpu)
  phase train after -- "$LLAMAFACTORY" -m llamafactory.launcher "$RUN"/train/llamafactory.yaml
  phase train ungraded -- "$LLAMAFACTORY" -m llamafactory.launcher "$RUN"/controls/ungraded/train/llamafactory.yaml
}

part_eval() {
  VLLM=$(python3 -m launchers.envs vllm --device cpu)
  phase eval before -- "$CORE" -m data_prep run "$RUN"/eval/before.spec.json --steps load
  phase eval before -- "$VLLM" -m data_prep run "$RUN"/eval/before.spec.json --steps generate
  phase eval before -- "$CORE" -m data_prep run "$RUN"/eval/before.spec.json --steps score
  phase eval before -- "$CORE" -m data_prep.evaluation.metrics evaluate --spec "$RUN"/eval/before.spec.json --label before --model <repo>/recipes/mini/model --decoding '{"n":2,"temperature":1.0,"top_p":1.0,"max_tokens":140,"seed":0}' --out "$RUN"/eval/before.json
  phase eval after -- "$CORE" -m data_prep run "$RUN"/eval/after.spec.json --steps load
  phase eval after -- "$VLLM" -m data_prep run "$RUN"/eval/after.spec.json --steps generate
  phase eval after -- "$CORE" -m data_prep run "$RUN"/eval/after.spec.json --steps score
  phase eval after -- "$CORE" -m data_prep.evaluation.metrics evaluate --spec "$RUN"/eval/after.spec.json --label after --model <run>/train --decoding '{"n":2,"temperature":1.0,"top_p":1.0,"max_tokens":140,"seed":0}' --out "$RUN"/eval/after.json
  phase eval ungraded -- "$CORE" -m data_prep run "$RUN"/eval/ungraded.spec.json --steps load
  phase eval ungraded -- "$VLLM" -m data_prep run "$RUN"/eval/ungraded.spec.json --steps generate
  phase eval ungraded -- "$CORE" -m data_prep run "$RUN"/eval/ungraded.spec.json --steps score
  phase eval ungraded -- "$CORE" -m data_prep.evaluation.metrics evaluate --spec "$RUN"/eval/ungraded.spec.json --label ungraded --model <run>/controls/ungraded/train --decoding '{"n":2,"temperature":1.0,"top_p":1.0,"max_tokens":140,"seed":0}' --out "$RUN"/eval/ungraded.json
  phase eval after-ungraded -- "$CORE" -m data_prep.evaluation.metrics compare --a "$RUN"/eval/after.json --b "$RUN"/eval/ungraded.json --out "$RUN"/compare.json
  phase eval after-before -- "$CORE" -m data_prep.evaluation.metrics compare --a "$RUN"/eval/after.json --b "$RUN"/eval/before.json --out "$RUN"/compare.json
}

part_report() {
  phase report '' -- "$CORE" -m launchers report "$RUN"
}

[ $# -gt 0 ] || set -- data train eval report
for part in "$@"; do
  case $part in
    data|train|eval|report) "part_$part" ;;
    *) echo "error: no part '$part' (there are: data, train, eval, report)" >&2; exit 2 ;;
  esac
done
