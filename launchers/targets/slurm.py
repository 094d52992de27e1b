"""job.sbatch: a Slurm header from the hardware profile and the site, around the same local.sh."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, ValidationError

from launchers.envs import REPO
from launchers.errors import Fault, RunError, UserError, did_you_mean, fail
from launchers.plan.plan import Plan
from launchers.recipe import positions as yaml_tree
from launchers.recipe.compose import faults_of
from launchers.recipe.schema import Strict
from launchers.render import template

FOLDER = REPO / "configs" / "sites"
_PLAIN = r"^[\w.:=,@%/+-]*$"  # what may stand in an #SBATCH line, which nothing quotes


class Site(Strict):
    """A cluster's own settings; copy configs/sites/example.yaml."""

    partition: str | None = Field(default=None, pattern=_PLAIN)
    account: str | None = Field(default=None, pattern=_PLAIN)
    qos: str | None = Field(default=None, pattern=_PLAIN)
    gpu_type: str | None = Field(default=None, pattern=_PLAIN)
    """The type in --gres=gpu:TYPE:N, where the cluster wants one."""
    cpus_per_task: int | None = Field(default=None, gt=0)
    """CPUs of a node; null takes the hardware profile's."""
    memory: str | None = Field(default=None, pattern=r"^[0-9]+[KMGT]?$")
    """Memory of a node as --mem takes it; null takes the hardware profile's, 0 all there is."""
    modules: list[str] = []
    environ: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], str] = {}
    """Exported in the job, e.g. NCCL settings."""
    extra: list[str] = []
    """Further #SBATCH options, one each, e.g. --exclusive."""


def names() -> list[str]:
    """The sites there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_site(name: str | None, where: str = "") -> Site:
    """The site's settings; none at all without a name. Raises UserError."""
    if name is None:
        return Site()
    if name not in names():
        raise UserError(Fault(where, "site", f"no profile {name!r} in configs/sites; {did_you_mean(name, names())}"))
    tree = yaml_tree.load(FOLDER / f"{name}.yaml", f"configs/sites/{name}.yaml")
    try:
        site = Site.model_validate(tree.plain())
    except ValidationError as error:
        raise UserError(*faults_of(error, tree, Site)) from None
    for index, option in enumerate(site.extra):
        if "\n" in option or not option.startswith("-"):
            raise fail(
                f"{option!r} is not one Slurm option such as --exclusive",
                tree.where_of(("extra", index)),
                "extra",
            )
    return site


def job_name(plan: Plan) -> str:
    """A name that Slurm's tools show whole: no spaces, no slashes."""
    return re.sub(r"[^\w.-]+", "-", plan.resolved.name)


def sbatch_script(plan: Plan, script: str) -> str:
    """The text of job.sbatch."""
    resolved = plan.resolved
    if any(character in str(plan.run) for character in "\n\r"):
        raise fail("a run directory for Slurm cannot hold a line break", key="--out")
    output = (str(plan.run / "logs").replace("%", "%%") + "/slurm-%j.out").replace('"', '\\"')
    return template("job.sbatch.j2").render(
        name=resolved.name,
        scale=resolved.scale,
        job_name=job_name(plan),
        hardware=plan.hardware,
        time_limit=resolved.recipe.time_limit,
        output=f'"{output}"' if " " in output else output,
        site=load_site(resolved.recipe.site, resolved.where("site")),
        local=plan.run / script,
    )


def submit_command(plan: Plan, after: Sequence[str] = ()) -> list[str]:
    """The exact line that submits the job; `after`: jobs that have to end first."""
    waiting = [f"--dependency=afterany:{':'.join(after)}"] if after else []
    return ["sbatch", "--parsable", *waiting, str(plan.run / "job.sbatch")]


def submit(line: list[str]) -> str:
    """Hand the job to Slurm; returns its number. Raises RunError with what sbatch said."""
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RunError(
            "sbatch is not on PATH: submit from a login node of the cluster (--dry-run shows the line)"
        ) from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise RunError(f"sbatch refused the job: {said[-1]}")
    return done.stdout.strip()
