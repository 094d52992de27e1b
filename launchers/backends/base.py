"""The interface of a trainer backend: check a recipe, render native configs, build commands, report progress.

A backend never imports its trainer, which runs in its own environment. A new trainer is one module here and a folder
in templates/.
"""

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
    """A path relative to the run directory."""


class EnvPython(str):
    """The Python interpreter of the named environment."""


@dataclass(frozen=True)
class Command:
    """One process: arguments (str, InRun or EnvPython), phase, label, environment variables."""

    argv: tuple[str, ...]
    phase: str
    label: str
    environ: tuple[tuple[str, str], ...] = ()
    service: str = ""  # reward_model or second_judge, if its server must run at the same time
    across: tuple[str, ...] = ()  # on several nodes: torchrun or ray, number of nodes, GPUs per node (run/nodes.py)

    @property
    def words(self) -> tuple[str, ...]:
        """The full command line, with the wrapper that starts it on all nodes or with the reward model's server."""
        server = (InRun(f"{self.service}.json"), EnvPython("vllm"), self.phase) if self.service else ()
        if self.across:  # each node has its own server
            return (EnvPython("core"), "-m", "launchers.run.nodes", *self.across, *server, "--", *self.argv)
        if server:
            return (EnvPython("core"), "-m", "launchers.run.service", *server, "--", *self.argv)
        return self.argv


@dataclass(frozen=True)
class Batch:
    """global_batch = micro × accumulation × world."""

    global_batch: int
    micro: int
    accumulation: int
    world: int


@dataclass(frozen=True)
class Job:
    """One training: the recipe (or a control's version of it), its folder in the run directory, its data."""

    resolved: Resolved
    hardware: Hardware
    batch: Batch
    folder: str  # "" for the recipe itself, "controls/<name>" for a control
    dataset: Path  # the export step's folder
    validation: Path | None = None  # the export step's folder of the validation rows
    in_place: bool = False  # whether the trainer writes the complete model into its own folder

    @property
    def label(self) -> str:
        """The label of its evaluation."""
        return Path(self.folder).name or "after"

    @property
    def output(self) -> InRun:
        """The trainer's output folder."""
        return InRun(f"{self.folder}/train".removeprefix("/"))

    @property
    def model(self) -> InRun:
        """The folder of the final model: the trainer's, or the one with merged adapters or shards."""
        return self.output if self.in_place else InRun(f"{self.output}/merged")


@dataclass(frozen=True)
class Progress:
    """Steps done and planned; `facts` are the last step's metrics, for events.jsonl."""

    done: int
    planned: int
    facts: dict[str, float] = field(default_factory=dict)


def torchrun(env: str, job: Job, module: str) -> tuple[str, ...]:
    """Run one process of `module` per GPU; the node rank comes from PET_… variables (run/nodes.py)."""
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
    """Whether bf16 training keeps weights, gradients and moments in bf16, without an fp32 master copy."""
    reference_beside = False
    """Whether full preference training also keeps the reference model in GPU memory, at 2 bytes per weight."""
    held_out_loss = False
    """Whether SFT and DPO can compute the loss on rows that a pipeline holds out."""
    pair_logits_fp32 = False
    """Whether preference training keeps logits in fp32, without a fused loss."""
    dequantises: tuple[str, ...] = ()
    """Quantisation methods whose weights the trainer converts to bf16 before training."""
    template_key = ""
    """The recipe key that selects another chat template, if the trainer does not use the model's own."""

    def in_place(self, recipe: Recipe) -> bool:
        """Whether it writes the complete model into its own folder instead of `merged` in it."""
        return False

    def export(self, recipe: Recipe) -> dict[str, Any]:
        """Parameters of the export step that writes its training files."""
        pairs = {"preference": True} if recipe.method == "dpo" else {}  # absent otherwise, so that step hashes stay
        return {"format": self.format, **pairs}

    @abstractmethod
    def check(self, resolved: Resolved, hardware: Hardware) -> list[Fault]:
        """Trainer-specific faults of a recipe."""

    @abstractmethod
    def render(self, job: Job, run: Path) -> dict[str, str]:
        """Native config files: path in the run directory to text."""

    @abstractmethod
    def commands(self, job: Job) -> tuple[Command, ...]:
        """The commands of phase "train" and, if needed, "merge"."""

    @abstractmethod
    def prepare(self, output: Path) -> None:
        """Remove incomplete files of an interrupted run, so that training can resume from the folder."""

    def finished(self, output: Path) -> bool:
        """Whether the training has finished and its model is complete: merging writes this marker last."""
        return (output / "merged" / "done.json").exists()

    @abstractmethod
    def progress(self, output: Path) -> Progress | None:
        """Steps done and planned; None before the first step."""

    def reason(self, log: str) -> str:
        """The line of a failed run's log that best explains the failure."""
        return shared.reason(log)
