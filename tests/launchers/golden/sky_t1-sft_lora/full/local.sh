#!/usr/bin/env bash
# sky_t1/sft_lora. Runs without the launcher, all parts or some: bash local.sh [data] [train] [eval] [report]
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
for name in RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK ROLE_RANK NODE_RANK MASTER_ADDR MASTER_PORT PET_NODE_RANK PET_MASTER_ADDR PET_MASTER_PORT PET_NNODES PET_NPROC_PER_NODE TORCHELASTIC_RUN_ID FORCE_TORCHRUN RAY_ADDRESS PYTHONPATH PYTHONHOME; do
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
# Only one process may work on a run; the launcher holds the lock for the script that it starts.
if [ -z "${POSTTRAIN_LOCK_HELD-}" ]; then
  exec {lock}>"$RUN/.lock"
  flock -n "$lock" || { echo "error: another process is working on this run: $RUN" >&2; exit 2; }
fi

# Each part builds the pinned environments that it needs, if they are missing.
CORE=$(python3 -m launchers.envs core)

# Runs a command with a log, records its time and memory in events.jsonl, and stops all its processes at the end.
phase() { "$CORE" -m launchers.run.supervise "$RUN" "$@"; }

need_gpus() {
  [ -n "${CUDA_VISIBLE_DEVICES-}" ] || return 0
  local visible
  visible=$(tr , '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .)
  note "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES: the run sees $visible GPUs"
  [ "$visible" -ge "$1" ] || { echo "error: the run needs $1 GPUs, but CUDA_VISIBLE_DEVICES lists $visible: unset it, or choose another profile (HARDWARE=)" >&2; exit 2; }
}

part_data-1() {
  phase data '' -- "$CORE" -m data_prep run "$RUN"/data/train.json --steps math,amc_aime,olympiads,label,kept_math,kept_amc_aime,kept_olympiads
}

part_data-2() {
  need_gpus 8
  VLLM=$(python3 -m launchers.envs vllm --device cuda)
  phase data '' -- "$VLLM" -m data_prep run "$RUN"/data/train.json --steps maths_thoughts
}

part_data-3() {
  phase data '' -- "$CORE" -m data_prep run "$RUN"/data/train.json --steps apps,taco
}

part_data-4() {
  need_gpus 8
  VLLM=$(python3 -m launchers.envs vllm --device cuda)
  phase data '' -- "$VLLM" -m data_prep run "$RUN"/data/train.json --steps programs_thoughts
}

part_data-5() {
  phase data '' -- "$CORE" -m data_prep run "$RUN"/data/train.json --steps rewrite,programs,judged_programs,maths,judged_maths,right,long_thoughts,still_2,mix,decontaminate,export
}

part_train() {
  need_gpus 8
  LLAMAFACTORY=$(python3 -m launchers.envs llamafactory --device cuda)
  phase train after -- PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True TORCH_NCCL_AVOID_RECORD_STREAMS=1 "$LLAMAFACTORY" -m torch.distributed.run --nnodes 1 --nproc-per-node 8 --standalone -m launchers.plugins.llamafactory.train "$RUN"/train
  phase merge after -- "$LLAMAFACTORY" -m llamafactory.cli export "$RUN"/train/merge.yaml
}

part_eval() {
  need_gpus 8
  VLLM=$(python3 -m launchers.envs vllm --device cuda)
  phase eval after -- "$CORE" -m data_prep run "$RUN"/eval/after.spec.json --steps load
  phase eval after -- "$VLLM" -m data_prep run "$RUN"/eval/after.spec.json --steps generate
  phase eval after -- "$CORE" -m data_prep run "$RUN"/eval/after.spec.json --steps select_0,score_0,select_1,score_1,select_2,score_2
  phase eval after -- "$CORE" -m data_prep.evaluation.metrics evaluate --spec "$RUN"/eval/after.spec.json --label after --model <run>/train/merged --decoding '{"n":4,"temperature":0.7,"top_p":1.0,"max_tokens":16384,"seed":0}' --out "$RUN"/eval/after.json
}

part_report() {
  phase report '' -- "$CORE" -m launchers report "$RUN"
}

part_data() {
  part_data-1
  part_data-2
  part_data-3
  part_data-4
  part_data-5
}

[ $# -gt 0 ] || set -- data train eval report
for part in "$@"; do
  case $part in
    data|train|eval|report|data-1|data-2|data-3|data-4|data-5) "part_$part" ;;
    *) echo "error: no part '$part' (known: data, train, eval, report)" >&2; exit 2 ;;
  esac
done
