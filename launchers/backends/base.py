"""What the launcher asks of a trainer: check a recipe, render its config, say how it is started and how it went.

A backend never imports its trainer: it renders files, and the trainer runs in its own environment. A new
trainer is one module here and a folder in templates/.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launchers.backends import shared
from launchers.errors import Fault
from launchers.machines.hardware import Hardware
from launchers.recipe.compose import Resolved
from launchers.recipe.schema import Recipe


class InRun(str):
    """A path below the run directory, written relative to it."""


class EnvPython(str):
    """The interpreter of the environment of this name."""


@dataclass(frozen=True)
class Command:
    """One process: its arguments (str, InRun or EnvPython), what it is part of, what it changes in the environment."""

    argv: tuple[str, ...]
    phase: str
    label: str
    environ: tuple[tuple[str, str], ...] = ()
    service: str = ""  # the recipe's reward_model or second_judge, where its server has to run beside
    across: tuple[str, ...] = ()  # on several nodes: torchrun or ray, the nodes, and the GPUs of each (run/nodes.py)

    @property
    def words(self) -> tuple[str, ...]:
        """The process that is started: the command, or what starts it on all nodes or beside the reward model."""
        beside = (InRun(f"{self.service}.json"), EnvPython("vllm"), self.phase) if self.service else ()
        if self.across:  # each node has a server of its own
            return (EnvPython("core"), "-m", "launchers.run.nodes", *self.across, *beside, "--", *self.argv)
        if beside:
            return (EnvPython("core"), "-m", "launchers.run.service", *beside, "--", *self.argv)
        return self.argv


@dataclass(frozen=True)
class Batch:
    """How a global batch is made: micro × accumulation × world."""

    global_batch: int
    micro: int
    accumulation: int
    world: int


@dataclass(frozen=True)
class Job:
    """One training: the recipe (or a control's version of it), its folder below the run directory, its data."""

    resolved: Resolved
    hardware: Hardware
    batch: Batch
    folder: str  # "" for the recipe itself, "controls/<name>" for a control
    dataset: Path  # the export step's folder
    validation: Path | None = None  # the same of rows that training is validated on
    in_place: bool = False  # whether the whole model is written into the trainer's own folder

    @property
    def label(self) -> str:
        """The name that its evaluation goes by."""
        return Path(self.folder).name or "after"

    @property
    def output(self) -> InRun:
        """Where the trainer writes."""
        return InRun(f"{self.folder}/train".removeprefix("/"))

    @property
    def model(self) -> InRun:
        """The whole model that comes out: the trainer's folder, or where adapters and shards are merged."""
        return self.output if self.in_place else InRun(f"{self.output}/merged")


@dataclass(frozen=True)
class Progress:
    """How far a training has come, in steps; `facts` are the last step's numbers, for the events."""

    done: int
    planned: int
    facts: dict[str, float] = field(default_factory=dict)


def torchrun(env: str, job: Job, module: str) -> tuple[str, ...]:
    """One process of `module` per GPU, which reads its rank among nodes from PET_… (run/nodes.py)."""
    alone = ("--standalone",) if job.hardware.nodes == 1 else ()
    processes = str(max(1, job.hardware.gpus_per_node))
    return (
        EnvPython(env), "-m", "torch.distributed.run", "--nnodes", str(job.hardware.nodes),
        "--nproc-per-node", processes, *alone, "-m", module, job.output,
    )  # fmt: skip


class Backend(ABC):
    """One trainer."""

    name: str
    env: str
    methods: tuple[str, ...]
    format: str  # of the export step
    inspects: str  # the module that writes tokens.json of a training's folder (checks/tokens.py), in its environment
    pure_bf16 = False
    """Whether bf16 training keeps weights, gradients and moments in bf16, without a master copy."""
    reference_beside = False
    """Whether full training on pairs holds the reference model beside the trained one, in 2 bytes per weight."""
    held_out_loss = False
    """Whether training outside of online RL measures its loss on rows that a pipeline holds out."""
    pair_logits_fp32 = False
    """Whether training on pairs keeps logits in fp32, without a fused loss."""
    dequantises: tuple[str, ...] = ()
    """Kinds of quantised weights that it turns into bf16 before it trains them."""
    template_key = ""
    """The recipe's key that names another chat template, where it does not take the model's own."""

    def in_place(self, recipe: Recipe) -> bool:
        """Whether it writes a whole model into its own folder, and not into `merged` below it."""
        return False

    def export(self, recipe: Recipe) -> dict[str, Any]:
        """Parameters of the export step that writes its training files: conversations, or pairs of them."""
        pairs = {"preference": True} if recipe.method == "dpo" else {}  # left out, the step keeps the hash it had
        return {"format": self.format, **pairs}

    @abstractmethod
    def check(self, resolved: Resolved, hardware: Hardware) -> list[Fault]:
        """Faults that only this trainer's rules can find."""

    @abstractmethod
    def render(self, job: Job, run: Path) -> dict[str, str]:
        """Native config files: path below the run directory to text."""

    @abstractmethod
    def commands(self, job: Job) -> tuple[Command, ...]:
        """The training process (phase "train"), and what has to follow it (phase "merge")."""

    @abstractmethod
    def prepare(self, output: Path) -> None:
        """Make a folder that may hold a killed run's remains fit to be resumed from."""

    def finished(self, output: Path) -> bool:
        """Whether the training has ended and its result is whole: merging leaves a marker last."""
        return (output / "merged" / "done.json").exists()

    @abstractmethod
    def progress(self, output: Path) -> Progress | None:
        """Steps done and planned, None before there are any."""

    def reason(self, log: str) -> str:
        """The line of a failed run's log that tells a user what went wrong."""
        return shared.reason(log)
