#!/usr/bin/env bash
# skill_mix/sft_gold at scale mini. Runs without the launcher, all parts or some: bash local.sh [data] [train] [eval] [report]
# After an interruption the same command resumes from the last complete shard or checkpoint.
# shellcheck disable=SC2016  # single-quoted text is meant literally
set -euo pipefail

RUN=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cd -- <repo>
ATTEMPT=$(date +%Y%m%dT%H%M%S)
SCRIPT_PID=$$
export RUN ATTEMPT SCRIPT_PID

# Variables inherited from a shell, another job or a scheduler are used or replaced, with a note.
note() { mkdir -p "$RUN/logs/$ATTEMPT"; echo "note: $*" | tee -a "$RUN/logs/$ATTEMPT/environment.log" >&2; }
for name in RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK ROLE_RANK NODE_RANK MASTER_ADDR MASTER_PORT PET_NODE_RANK PET_MASTER_ADDR PET_MASTER_PORT PET_NNODES PET_NPROC_PER_NODE TORCHELASTIC_RUN_ID FORCE_TORCHRUN RAY_ADDRESS PYTHONPATH PYTHONHOME CUDA_VISIBLE_DEVICES; do
  [ -z "${!name-}" ] || [ "${!name}" = <repo> ] || note "$name=${!name} is not used: the run sets its own"
  unset "$name"
done
if [ -n "${http_proxy-}${https_proxy-}${HTTP_PROXY-}${HTTPS_PROXY-}${all_proxy-}${ALL_PROXY-}" ]; then
  export no_proxy="${no_proxy:+$no_proxy,}localhost,127.0.0.1,::1"
  export NO_PROXY="$no_proxy"
  note "a proxy is set: it is used for downloads, not for servers on this machine"
fi
if [ -n "${TMPDIR-}" ] && { [ -n "${TMPDIR:60}" ] || [ ! -w "$TMPDIR" ]; }; then
  note "TMPDIR=$TMPDIR is not used: it is too long for sockets (over 60 characters) or not writable; using /tmp"
  export TMPDIR=/tmp
fi
export PYTHONPATH=<repo>
export PYTHONDONTWRITEBYTECODE=''
export PYTHONUTF8=1
export HF_HUB_DISABLE_TELEMETRY=1
export DO_NOT_TRACK=1
export VLLM_NO_USAGE_STATS=1
export OMP_NUM_THREADS=1
export CUDA_VISIBLE_DEVICES=''
export TOKENIZERS_PARALLELISM=false
# Only one process may work on a run; the launcher holds the lock for the script that it starts.
if [ -z "${POSTTRAIN_LOCK_HELD-}" ]; then
  exec {lock}>"$RUN/.lock"
  flock -n "$lock" || { echo "error: another process is working on this run: $RUN" >&2; exit 2; }
fi

# Each part builds the pinned environments that it needs, if they are missing.
CORE=$(python3 -m launchers.envs core)

# Runs a command with a log, records its time and memory in events.jsonl, and stops all its processes at the end.
phase() { "$CORE" -m launchers.run.supervise "$RUN" "$@"; }

part_data() {
  phase data '' -- "$CORE" -m data_prep run "$RUN"/data/train.json --steps curriculum,gold,export
}

part_train() {
  TORCHTUNE=$(python3 -m launchers.envs torchtune --device cpu)
  phase train after -- "$TORCHTUNE" -m launchers.plugins.torchtune.train "$RUN"/train
}

part_eval() {
  VLLM=$(python3 -m launchers.envs vllm --device cpu)
  phase eval before -- "$CORE" -m data_prep run "$RUN"/eval/before.spec.json --steps load
  phase eval before -- "$VLLM" -m data_prep run "$RUN"/eval/before.spec.json --steps generate
  phase eval before -- "$CORE" -m data_prep run "$RUN"/eval/before.spec.json --steps score
  phase eval before -- "$CORE" -m data_prep.evaluation.metrics evaluate --spec "$RUN"/eval/before.spec.json --label before --model <repo>/recipes/mini/coder --decoding '{"n":4,"temperature":1.0,"top_p":1.0,"max_tokens":96,"seed":0}' --out "$RUN"/eval/before.json
  phase eval after -- "$CORE" -m data_prep run "$RUN"/eval/after.spec.json --steps load
  phase eval after -- "$VLLM" -m data_prep run "$RUN"/eval/after.spec.json --steps generate
  phase eval after -- "$CORE" -m data_prep run "$RUN"/eval/after.spec.json --steps score
  phase eval after -- "$CORE" -m data_prep.evaluation.metrics evaluate --spec "$RUN"/eval/after.spec.json --label after --model <run>/train/merged --decoding '{"n":4,"temperature":1.0,"top_p":1.0,"max_tokens":96,"seed":0}' --out "$RUN"/eval/after.json
  phase eval after-before -- "$CORE" -m data_prep.evaluation.metrics compare --a "$RUN"/eval/after.json --b "$RUN"/eval/before.json --out "$RUN"/compare.json
}

part_report() {
  phase report '' -- "$CORE" -m launchers report "$RUN"
}

[ $# -gt 0 ] || set -- data train eval report
for part in "$@"; do
  case $part in
    data|train|eval|report) "part_$part" ;;
    *) echo "error: no part '$part' (known: data, train, eval, report)" >&2; exit 2 ;;
  esac
done
