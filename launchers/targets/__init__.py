"""Where a run is started: this machine, or Slurm. Both are scripts rendered from one plan."""

from __future__ import annotations

from launchers.targets.jobs import environments
from launchers.targets.local import local_script
from launchers.targets.slurm import sbatch_script

__all__ = ["environments", "local_script", "sbatch_script"]
