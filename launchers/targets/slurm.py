"""Renders job.sbatch, a Slurm script around local.sh, from hardware profile and site; submits and queries jobs."""

import math
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from launchers.envs import REPO, cache_dir
from launchers.errors import RunError, did_you_mean, fail
from launchers.plan.plan import Plan
from launchers.recipe import positions as yaml_tree
from launchers.recipe.compose import validated
from launchers.recipe.schema import Strict
from launchers.render import template
from launchers.targets.jobs import JobPart, job_parts

FOLDER = REPO / "configs" / "sites"
DEFAULT = "POSTTRAIN_SITE"  # environment variable with the name of the user's site
_PLAIN = r"^[\w.:=,@%/+&|()\[\]*-]*$"  # characters allowed in an #SBATCH line, which has no quoting
_VARIABLE = r"\$([A-Za-z_]\w*|\{[A-Za-z_]\w*\})"
_LEAKS = re.compile(r"(SLURM|SBATCH|SRUN|PMIX?|OMPI)_")  # variables of a surrounding job, which would limit the new one
_FOLDERS = ("POSTTRAIN_CACHE", "HF_HOME", "HF_HUB_CACHE")  # exported in the script, because of --export=NONE
REFUSALS = REPO / "configs" / "slurm_refusals.yaml"


def _text(value: Any) -> Any:
    """A YAML number as text: accounts, sizes and variables may look like numbers."""
    return str(value) if type(value) in (int, float) else value


def _must_be(what: str, pattern: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise PydanticCustomError("site", "Input should be {what}", {"what": what})
        return value

    return AfterValidator(check)


Text = Annotated[str, BeforeValidator(_text)]
Plain = Annotated[Text, Field(pattern=_PLAIN)]
Literally = Annotated[Text, _must_be("written in full: only scratch expands variables", r"(?s:(?!.*\$[\w{]).*)")]
Mount = Annotated[str, _must_be("source:target, both absolute paths in full", r"/[^:,$]*:/[^:,$]*(:[\w+=-]+)?")]
Scratch = Annotated[
    str,
    _must_be(
        "an absolute path, or begin with a variable of the job such as $TMPDIR",
        rf"""(/|{_VARIABLE}(?=/|$))([^$`"\\\x00-\x1f\x7f]|{_VARIABLE})*""",
    ),
]


class Container(Strict):
    """The container in which a site runs jobs. Repository, run directory and cache are mounted automatically."""

    runtime: Literal["pyxis", "apptainer"]
    image: Annotated[Literally, _must_be("an image's name or path", ".+")]
    mounts: list[Mount] = []
    """Additional mounts, as source:target."""


class Site(Strict):
    """Settings of a cluster; copy configs/sites/example.yaml."""

    partition: Plain | None = None
    cpu_partition: Plain | None = None
    """For jobs without GPUs."""
    account: Plain | None = None
    qos: Plain | None = None
    constraint: Plain | None = None
    gpu_type: Plain | None = None
    """The type in --gres=gpu:TYPE:N, if the cluster needs one."""
    cpus_per_task: int | None = Field(default=None, gt=0)
    """CPUs per node; null uses the hardware profile's."""
    memory: Annotated[Text, Field(pattern=r"^[0-9]+[KMGT]?$")] | None = None
    """Memory per node in the format of --mem; null uses the hardware profile's, 0 requests all."""
    modules: list[str] = []
    environ: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], Literally] = {}
    """Environment variables of the job, taken literally, e.g. proxies or NCCL settings."""
    network_interface: str | None = Field(default=None, pattern=r"^[\w.:@-]+$")
    """The network interface between nodes; null uses the one of the route to another node."""
    scratch: Scratch | None = None
    """A folder on each node's local disk for copies of environments, compiled kernels and caches. May contain variables
    of the job ($TMPDIR, /local/$SLURM_JOB_ID)."""
    container: Container | None = None
    offline: bool = False
    """Whether compute nodes have no network; `make stage/…` is then required."""
    max_attempts: int = Field(default=20, gt=0)
    """Maximum number of starts of one job, including requeues."""
    signal_s: int = Field(default=180, ge=100, le=280)
    """Seconds before the time limit at which the run is stopped; Slurm may signal up to 60 s earlier."""
    extra: list[Annotated[str, _must_be("one Slurm option such as --exclusive", r"-.*")]] = []
    """Additional #SBATCH options, one per entry, e.g. --exclusive."""


def load_site(name: str | None, where: str = "") -> Site:
    """The site's settings; without a name those of POSTTRAIN_SITE, else the defaults. Raises UserError."""
    if name is None:
        name, where = os.environ.get(DEFAULT) or None, DEFAULT
    if name is None:
        return Site()
    known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    if name not in known:
        raise fail(f"no profile {name!r} in configs/sites; {did_you_mean(name, known)}", where, "site")
    return validated(yaml_tree.load(FOLDER / f"{name}.yaml", f"configs/sites/{name}.yaml"), Site)


def site_of(plan: Plan) -> Site:
    """The site of a run."""
    return load_site(plan.resolved.recipe.site, plan.resolved.where("site"))


def job_name(plan: Plan, part: str = "") -> str:
    """A Slurm job name without spaces and slashes."""
    return re.sub(r"[^\w.-]+", "-", f"{plan.resolved.name}{'-' if part else ''}{part}")


def output_option(path: Path) -> str:
    """The path of a log quoted for an #SBATCH line; only its file name may contain %j."""
    text = f"{str(path.parent).replace('%', '%%')}/{path.name}".replace('"', '\\"')
    return f'"{text}"'  # a bare # or ' would end the path


def sbatch_script(plan: Plan, script: str) -> str:
    """The text of job.sbatch."""
    resolved, site = plan.resolved, site_of(plan)
    if re.search(r"[\x00-\x1f\x7f]", str(plan.run)):
        raise fail("a run directory for Slurm must not contain control characters", key="--out")
    return template("job.sbatch.j2").render(
        name=resolved.name,
        scale=resolved.scale,
        job_name=job_name(plan),
        hardware=plan.hardware,
        time_limit=resolved.recipe.time_limit,
        chain=resolved.recipe.chain,
        output=output_option(plan.run / "logs" / "slurm-%j.out"),
        site=site,
        container=_container(site, plan),
        run=plan.run,
        repo=REPO,
        script=script,
        folders={name: os.path.abspath(os.environ[name]) for name in _FOLDERS if os.environ.get(name)},
    )


def _container(site: Site, plan: Plan) -> dict[str, list[str]] | None:
    """Quoted words to add: to srun and before the command in multi-node tasks, and before the script on one node."""
    given = site.container
    if given is None:
        return None
    own = [str(path) for path in dict.fromkeys((REPO, cache_dir(), plan.run))]
    mounts = ",".join([*(f"{path}:{path}" for path in own), *given.mounts])
    if given.runtime == "apptainer":
        gpus = ["--nv"] if plan.hardware.device == "cuda" else []
        inside = ["apptainer", "exec", *gpus, "--no-home", "--bind", mounts, "--pwd", str(REPO), given.image]
        return {"srun": [], "inside": [*map(_quoted, inside)], "alone": [*map(_quoted, inside)]}
    options = [
        f"--container-image={given.image}", f"--container-mounts={mounts}", f"--container-workdir={REPO}",
        "--no-container-mount-home",
    ]  # fmt: skip
    srun = ["srun", "--nodes=1", "--ntasks=1", "--export=ALL", '--cpus-per-task="$SLURM_CPUS_PER_TASK"']
    quoted = [*map(_quoted, options)]
    return {"srun": quoted, "inside": [], "alone": [*srun, *quoted]}


def _quoted(word: str) -> str:
    """The word in quotes, even if not needed: shellcheck warns about an unquoted comma in an array."""
    return "'" + word.replace("'", "'\\''") + "'"


def submit_command(plan: Plan, job: JobPart, after: Sequence[str] = (), kind: str = "afterok") -> list[str]:
    """The sbatch command line of one job; `after`: jobs that it depends on, with dependency type `kind`."""
    site, cpus = site_of(plan), job.cpus
    if site.cpus_per_task is not None:
        cpus = max(1, math.floor(site.cpus_per_task * min(1, job.cpus / plan.hardware.cpus)))
    if "\\" in str(plan.run):  # Slurm then does not expand %j
        raise fail("a run directory for Slurm must not contain a backslash", key="--out")
    gres = f"gpu:{site.gpu_type + ':' if site.gpu_type else ''}{job.gpus}" if job.gpus else "none"
    options: dict[str, object] = {
        "job-name": job_name(plan, job.name), "comment": plan.run.name, "nodes": job.nodes, "gres": gres,
        "cpus-per-task": cpus, "mem": _memory(site, plan, job), "time": job.time,
    }  # fmt: skip
    if not plan.hardware.gpus_per_node:
        del options["gres"]
    if site.cpu_partition and not job.gpus:
        options["partition"] = site.cpu_partition
    if after:
        options |= {"dependency": f"{kind}:{':'.join(after)}", "kill-on-invalid-dep": "yes"}
    return [
        "sbatch", "--parsable", *(f"--{name}={value}" for name, value in options.items()),
        str(plan.run / "job.sbatch"), job.name,
    ]  # fmt: skip


def _memory(site: Site, plan: Plan, job: JobPart) -> str:
    """The --mem option: the job's share of the site's memory per node; everything if that is 0."""
    share = job.memory_gb / plan.hardware.host_memory_gb
    if site.memory is None:
        return f"{job.memory_gb:.0f}G"
    if share >= 1 or not site.memory.strip("0KMGT"):
        return site.memory
    scale = {"K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}.get(site.memory[-1], 1)
    return f"{max(1, int(float(site.memory.rstrip('KMGT')) * scale * share))}M"


def submit_lines(plan: Plan) -> list[list[str]]:
    """The sbatch lines of a run's job chain; dependencies are given by job name."""
    jobs = job_parts(plan)
    after = [[], *([job_name(plan, job.name)] for job in jobs[:-1])]
    return [submit_command(plan, job, names) for job, names in zip(jobs, after, strict=True)]


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment to submit from, without a surrounding job's variables."""
    return {key: value for key, value in environ.items() if key == "SLURM_CONF" or not _LEAKS.match(key)}


def submit(line: Sequence[str], only_test: bool = False) -> str:
    """Submit a job, or with `only_test` check whether Slurm would accept it; returns the job id.

    Raises RunError with sbatch's message.
    """
    words = [*line[:1], "--test-only", *line[1:]] if only_test else line
    try:
        done = subprocess.run(words, env=clean_environ(os.environ), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        remedy = "submit from a login node of the cluster (--dry-run shows the lines)"
        raise RunError(f"sbatch is not on PATH: {remedy}") from None
    if done.returncode:
        messages = filter(None, map(str.strip, done.stderr.splitlines()))
        refusal = "; ".join(messages) or f"exit {done.returncode}"
        hints = yaml_tree.load(REFUSALS, REFUSALS.name).plain()
        hint = next((f": {advice}" for pattern, advice in hints.items() if re.search(pattern, refusal, re.I)), "")
        raise RunError(f"sbatch rejected the job: {refusal}{hint}")
    return done.stdout.strip().partition(";")[0]  # with several clusters, the cluster's name follows


def ask(*words: str, timeout_s: float = 10) -> str:
    """The output of a Slurm command. Raises RunError if it is missing, fails or times out."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout_s)
    except FileNotFoundError:
        raise RunError(f"{words[0]} is not on PATH: run this on a login node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise RunError(f"{words[0]} did not answer within {timeout_s:.0f} s: try again later") from None
    only_forgotten = words[0] == "squeue" and "Invalid job id" in done.stderr
    if done.returncode and not only_forgotten:
        message = " ".join(done.stderr.split())[:300] or f"exit {done.returncode}"
        raise RunError(f"{words[0]} failed: {message}: try again later")
    return done.stdout


def tool(*words: str) -> str | None:
    """Like `ask`, but None instead of RunError."""
    try:
        return ask(*words)
    except RunError:
        return None


ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "STOPPED")
NEVER = "DependencyNeverSatisfied"
ENDED_BADLY = ("FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


def standing(state: str, reason: str) -> str:
    """Map Slurm's state and reason of a job to queued, running, failed or ended."""
    if reason == NEVER or state in ENDED_BADLY:
        return "failed"
    if state not in ALIVE:
        return "ended"
    return "queued" if state in ("PENDING", "REQUEUED", "REQUEUE_HOLD") else "running"


def states(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Job id to Slurm's (state, reason), for jobs that the controller still knows. Raises RunError as `ask` does."""
    command = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%r", f"--jobs={','.join(jobs)}"]
    lines = ask(*command).splitlines() if jobs else []
    return {job: (state, reason) for job, state, reason in (line.strip().split("|", 2) for line in lines)}


def states_and_ends(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Like `states`, and with Slurm accounting also the final state of jobs that the controller has purged."""
    known = states(jobs)
    if forgotten := [job for job in jobs if job not in known]:
        listed = tool("sacct", "-n", "-X", "-P", "--format=JobID,State", "-j", ",".join(forgotten)) or ""
        ends = dict(line.split("|", 1) for line in listed.splitlines())  # CANCELLED by 1000
        known |= {job: (ends[job].split()[0], "") for job in forgotten if ends.get(job, ALIVE[0]) not in ALIVE}
    return known
