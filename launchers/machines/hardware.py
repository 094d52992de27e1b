"""Hardware profiles (configs/hardware)."""

from typing import Annotated, Literal

from pydantic import Field

from data_prep.core.shards import Execution
from launchers.envs import REPO
from launchers.errors import did_you_mean, fail
from launchers.recipe import positions
from launchers.recipe.compose import validated
from launchers.recipe.schema import Strict

FOLDER = REPO / "configs" / "hardware"


class Hardware(Strict):
    """A homogeneous set of machines. cpus and host_memory_gb are per node, memory in GB, peak in dense bf16 TFLOP/s per
    GPU, interconnect in GB/s per GPU. data: how data steps are executed, by default on all CPUs of one machine.
    environ: environment variables for every process of a run, such as NCCL's.
    """

    device: Literal["cpu", "cuda"]
    accelerator: str
    nodes: int = Field(gt=0)
    gpus_per_node: int = Field(ge=0)
    memory_gb: float = Field(gt=0)
    host_memory_gb: float = Field(gt=0)
    cpus: int = Field(gt=0)
    peak_bf16_tflops: float = Field(gt=0)
    interconnect: str
    interconnect_gb_per_s: float = Field(ge=0)
    usd_per_gpu_hour: float | None = Field(default=None, ge=0)
    data: Execution = Execution()
    environ: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], str] = {}

    def across(self, kind: Literal["torchrun", "ray"]) -> tuple[str, ...]:
        """Command.across for this number of nodes; empty for one node."""
        return (kind, str(self.nodes), str(max(1, self.gpus_per_node))) if self.nodes > 1 else ()

    @property
    def world(self) -> int:
        """Number of training processes: one per GPU, or one on a CPU."""
        return self.nodes * max(1, self.gpus_per_node)


def names() -> list[str]:
    """All profiles."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, where: str = "") -> Hardware:
    """The profile `name`. Raises UserError for an unknown name or an invalid file."""
    path = FOLDER / f"{name}.yaml"
    if name not in names():
        raise fail(f"no profile {name!r} in configs/hardware; {did_you_mean(name, names())}", where, "hardware")
    return validated(positions.load(path, f"configs/hardware/{path.name}"), Hardware)
