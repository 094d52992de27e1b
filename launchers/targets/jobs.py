"""Splits a run into scheduler jobs with their resources: data, training, evaluation, report.

Consecutive data commands with and without GPUs become separate jobs (data-1, data-2, …), so that no GPU idles during
API requests or CPU work. local.sh has a function for each job.
"""

import math
import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from launchers.backends.base import Command, EnvPython
from launchers.plan import estimate
from launchers.plan.plan import PART_OF, PARTS, Plan

CPU_JOB = 16  # CPUs of a job without GPUs on a GPU machine
REPORT = (2, 8.0, "30:00")  # CPUs, GB, time
HOURS_MARGIN = 1.5  # factor on the estimated training time, which excludes checkpoints and start-up
START_HOURS = 1.0


@dataclass(frozen=True)
class JobPart:
    """One job: its name in local.sh, its part, and its resources per node."""

    name: str
    part: str
    commands: tuple[Command, ...]
    nodes: int
    gpus: int
    cpus: int
    memory_gb: float
    time: str


def job_parts(plan: Plan) -> list[JobPart]:
    """The jobs of a run, in order; parts without commands have none."""
    parts = []
    for part in PARTS:
        commands = [c for c in plan.commands if PART_OF.get(c.phase, c.phase) == part]
        groups = [list(group) for _, group in groupby(commands, key=lambda c: _runs(plan, part, c))]
        for number, group in enumerate(groups, 1):
            parts.append(_job(plan, f"{part}-{number}" if len(groups) > 1 else part, part, group))
    return parts


def _runs(plan: Plan, part: str, command: Command) -> object:
    """Consecutive commands with the same key form one job; only the data part is split."""
    return (gpus(plan, command) > 0, _nodes(plan, command)) if part == "data" else None


def _nodes(plan: Plan, command: Command) -> int:
    return plan.hardware.nodes if command.across else 1


def _job(plan: Plan, name: str, part: str, commands: list[Command]) -> JobPart:
    machine, limit = plan.hardware, plan.resolved.recipe.time_limit
    needed = max(gpus(plan, command) for command in commands)
    nodes = max(_nodes(plan, command) for command in commands)
    cpus, memory = machine.cpus, machine.host_memory_gb
    if part == "report":
        cpus, memory, limit = min(cpus, REPORT[0]), min(memory, REPORT[1]), _shorter(limit, REPORT[2])
    elif machine.gpus_per_node and not (nodes > 1 and not needed):
        share = needed / machine.gpus_per_node if needed else min(1.0, CPU_JOB / cpus)
        cpus, memory = math.ceil(cpus * share), math.ceil(memory * share)
    if part == "train" and machine.device == "cuda":
        limit = _training_time(plan, limit)
    return JobPart(name, part, tuple(commands), nodes, needed, cpus, memory, limit)


def _training_time(plan: Plan, limit: str) -> str:
    """The recipe's time limit, or the estimated training time with a margin if that is shorter."""
    guess = estimate.estimate(plan)
    if guess is None or guess.hours is None:
        return limit
    minutes = math.ceil(60 * len(plan.jobs) * (HOURS_MARGIN * guess.hours + START_HOURS))
    return _shorter(limit, f"{minutes // 60}:{minutes % 60:02}:00")


def gpus(plan: Plan, command: Command) -> int:
    """GPUs per node that a command uses, including those of its reward model server."""
    node = plan.hardware.gpus_per_node
    if not node or command.phase in ("train", "merge"):
        return node
    given = getattr(plan.resolved.recipe, command.service) if command.service else None
    server = given.gpus if given is not None and given.placement == "own_gpus" else 0
    if command.argv[0] != "vllm":
        return server
    names = command.argv[6].split(",")
    steps = [step for step in plan.specs[command.argv[4]].steps if step.name in names]
    return min(node, max(_engines(step.params, node - server) for step in steps) + server)


def _engines(params: dict[str, Any], free: int) -> int:
    """GPUs of a step's vLLM servers; without `replicas` it uses all free GPUs. A model outside vLLM uses one."""
    if "model" not in params:
        return 1
    each = int(params.get("tensor_parallel") or 1)
    return each * int(params.get("replicas") or max(1, free // each))


def environments(work: Plan | JobPart) -> list[str]:
    """The environments, besides core, that the commands of a run or a job use."""
    used = {str(word) for command in work.commands for word in command.words if isinstance(word, EnvPython)}
    return sorted(used - {"core"})


def seconds(limit: str) -> int:
    """A Slurm time limit (minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S) in seconds."""
    days, dash, rest = limit.rpartition("-")
    numbers = [int(number) for number in re.split(":", rest)]
    if dash:
        hours, minutes, secs = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, secs = numbers
    else:
        hours, (minutes, secs) = 0, [*numbers, 0][:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + secs


def _shorter(first: str, second: str) -> str:
    return min(first, second, key=seconds)
