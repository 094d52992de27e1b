#!/usr/bin/env bash
# sky_t1/flash. Runs by itself, whole or in part: bash local.sh [data] [train] [eval] [report]
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
  VLLM=$(python3 -m launchers.envs vllm --device cuda)
  phase data '' -- "$CORE" -m data_prep run "$RUN"/data/train.json --steps prm800k,taco
  phase data '' -- "$VLLM" -m data_prep run "$RUN"/data/train.json --steps generate
  phase data '' -- "$CORE" -m data_prep run "$RUN"/data/train.json --steps fitting,programs,judged_programs,maths,judged_maths,length_pairs,decontaminate,export
}

part_train() {
  LLAMAFACTORY=$(python3 -m launchers.envs llamafactory --device cuda)
  phase train after -- PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True TORCH_NCCL_AVOID_RECORD_STREAMS=1 "$LLAMAFACTORY" -m torch.distributed.run --nnodes 1 --nproc-per-node 8 --standalone -m llamafactory.launcher "$RUN"/train/llamafactory.yaml
}

part_eval() {
  VLLM=$(python3 -m launchers.envs vllm --device cuda)
  phase eval before -- "$CORE" -m data_prep run "$RUN"/eval/before.spec.json --steps load
  phase eval before -- "$VLLM" -m data_prep run "$RUN"/eval/before.spec.json --steps generate
  phase eval before -- "$CORE" -m data_prep run "$RUN"/eval/before.spec.json --steps select_0,score_0,select_1,score_1,select_2,score_2
  phase eval before -- "$CORE" -m data_prep.evaluation.metrics evaluate --spec "$RUN"/eval/before.spec.json --label before --model NovaSky-AI/Sky-T1-32B-Preview --decoding '{"n":4,"temperature":0.7,"top_p":1.0,"max_tokens":16384,"seed":0}' --out "$RUN"/eval/before.json
  phase eval after -- "$CORE" -m data_prep run "$RUN"/eval/after.spec.json --steps load
  phase eval after -- "$VLLM" -m data_prep run "$RUN"/eval/after.spec.json --steps generate
  phase eval after -- "$CORE" -m data_prep run "$RUN"/eval/after.spec.json --steps select_0,score_0,select_1,score_1,select_2,score_2
  phase eval after -- "$CORE" -m data_prep.evaluation.metrics evaluate --spec "$RUN"/eval/after.spec.json --label after --model <run>/train --decoding '{"n":4,"temperature":0.7,"top_p":1.0,"max_tokens":16384,"seed":0}' --out "$RUN"/eval/after.json
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
