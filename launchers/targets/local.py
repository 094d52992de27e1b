"""Renders local.sh, one bash script for the whole run, which works without the launcher."""

from launchers import envs
from launchers.backends.base import Command, EnvPython, InRun
from launchers.plan.plan import PARTS, Plan
from launchers.render import shell_word, template
from launchers.targets.jobs import environments, job_parts

# On a CPU, tiny models are several times faster with one thread; nothing may use a GPU.
_CPU = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
# Bytecode is written even if the user's shell disables it: into our own environments, saving seconds per process.
# Files are UTF-8, whatever LANG is.
_PYTHON = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONUTF8": "1"}
_QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
# Unset: read by torchrun, Accelerate, DeepSpeed, Ray or Python, they would make a trainer wait for processes that do
# not exist, or import other modules.
_REPLACED = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "NODE_RANK", "MASTER_ADDR",
    "MASTER_PORT", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT", "PET_NNODES", "PET_NPROC_PER_NODE",
    "TORCHELASTIC_RUN_ID", "FORCE_TORCHRUN", "RAY_ADDRESS", "PYTHONPATH", "PYTHONHOME",
)  # fmt: skip
_OF_A_NODE = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")  # set by the user when starting several nodes by hand
_LONGEST_TMPDIR = 60  # characters: Unix socket paths are limited to 107, and Ray and vLLM add about 40


def argument(word: str) -> str:
    """One word of a command, quoted; interpreters and run paths become shell variables."""
    if isinstance(word, EnvPython):
        return f'"${word.upper()}"'
    if isinstance(word, InRun):
        return f'"$RUN"/{shell_word(word)}' if word else '"$RUN"'
    return shell_word(word)


def environ(plan: Plan) -> dict[str, str]:
    """Environment variables of every process of the run. Secrets are inherited, never written here."""
    variables = {"PYTHONPATH": str(envs.REPO), **_PYTHON, **_QUIET}
    return variables | (_CPU if plan.hardware.device == "cpu" else {}) | plan.hardware.environ


def command_words(command: Command) -> str:
    """Arguments of local.sh's function `phase`: phase, label, environment, command."""
    words = [shell_word(command.phase), shell_word(command.label), "--"]
    words += [shell_word(f"{key}={value}") for key, value in command.environ]
    return " ".join([*words, *map(argument, command.words)])


def local_script(plan: Plan) -> str:
    """The text of local.sh."""
    resolved, jobs, on_cpu = plan.resolved, job_parts(plan), plan.hardware.device == "cpu"
    replaced = [*_REPLACED, *(["CUDA_VISIBLE_DEVICES"] if on_cpu else [])]
    return template("local.sh.j2").render(
        name=resolved.name,
        scale=resolved.scale,
        repo=envs.REPO,
        environ=environ(plan),
        with_trackers=plan.backend.env if plan.adds_trackers else None,
        device=plan.hardware.device,
        nodes=plan.hardware.nodes,
        longest_tmpdir=_LONGEST_TMPDIR,
        replaced=[name for name in replaced if plan.hardware.nodes == 1 or name not in _OF_A_NODE],
        parts={part: [job.name for job in jobs if job.part == part] for part in PARTS},
        jobs=[
            {
                "name": job.name,
                "gpus": job.gpus,
                "envs": environments(job),
                "commands": [command_words(command) for command in job.commands],
            }
            for job in jobs
        ],
    )
