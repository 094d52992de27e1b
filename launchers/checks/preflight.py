"""Validates a recipe before anything expensive starts, and reports all faults at once."""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import rewards
from data_prep.errors import DataError
from data_prep.inference.vllm.settings import count_gpus
from data_prep.sources import tasks
from data_prep.steps.load import Load, LoadParams
from launchers import backends, envs, harnesses
from launchers.checks import online, requirements
from launchers.errors import Fault, UserError, did_you_mean
from launchers.machines import hardware
from launchers.plan import estimate, plan, service
from launchers.plan import pipelines as sources
from launchers.plan.plan import Plan
from launchers.recipe import compose, models
from launchers.recipe.compose import Overrides, Resolved, patched
from launchers.recipe.schema import OURS, Recipe
from launchers.targets.slurm import load_site
from rewards.thinking import PRESETS, thinking

COMMIT = re.compile(r"[0-9a-f]{40}")
Findings = Iterator[tuple[str, str]]  # (key, message)
DISK_MARGIN = 5e7  # bytes of disk that any part of a run may need; data steps check their own needs


def check(resolved: Resolved, trains: bool = True) -> tuple[Resolved, list[Fault]]:
    """The recipe, ready to be planned, and all its faults (without `trains`: only those of its evaluation)."""
    faults: list[Fault] = []
    try:
        resolved = sources.with_local_model(resolved)
    except UserError as error:
        faults.extend(error.faults)
    recipe = resolved.recipe
    of_keys = (*_evaluation(resolved), *_zero(resolved), *_revision(resolved))
    faults += [*_lineage(resolved), *_placed(resolved, of_keys)]
    faults += _caught(resolved, lambda: load_site(recipe.site, resolved.where("site")))
    try:
        machines = hardware.load(recipe.hardware, resolved.where("hardware"))
    except UserError as error:
        return resolved, faults + list(error.faults)
    faults += service.faults(resolved, machines, trains)
    machines = service.training_machines(resolved, machines)
    absent = repr(recipe.model) if faults and faults[0].key == "model" else None

    if not trains and recipe.eval is None:
        faults.append(resolved.fault("eval", "missing: there are no benchmarks to evaluate on"))
    for control in ("", *recipe.controls) if trains else ():
        try:
            version = sources.with_local_model(patched(resolved, control)) if control else resolved
            found = _training(version, machines)
        except UserError as error:  # an unreadable file of the model
            found = list(error.faults)
        reported, prefix = {fault.message for fault in faults}, f"controls.{control}: " if control else ""
        for fault in found:  # skip repeated faults, and those about a model already reported missing
            if fault.message not in reported and not (absent and absent in fault.message):
                faults.append(replace(fault, key=prefix + fault.key))
    if not faults:  # faults that only building the plan finds
        faults += _caught(resolved, lambda: plan.build(resolved, Path("/run"), trains))
    return resolved, faults


def _lineage(resolved: Resolved) -> Iterator[Fault]:
    """Faults of the `model_of` chain (each recipe in it is fully checked when it runs)."""
    chain, current = [resolved.name], resolved
    while (name := current.begins_with) is not None:
        if name in chain:
            yield current.fault("model_of", f"circular: {' -> '.join((*chain, name))}")
            return
        if name not in (known := compose.recipe_names()):
            yield current.fault("model_of", f"no recipe {name!r}; {did_you_mean(name, known)}")
            return
        chain.append(name)
        try:
            current = compose.resolve(name, Overrides(resolved.scale))
        except UserError as error:
            yield from error.faults
            return


def _placed(resolved: Resolved, findings: Iterable[tuple[str, str]]) -> list[Fault]:
    return [resolved.fault(key, message) for key, message in findings]


def _caught(resolved: Resolved, check: Callable[[], object]) -> list[Fault]:
    try:
        check()
    except UserError as error:
        return list(error.faults)
    except DataError as error:
        return [Fault(resolved.where("data"), "data", str(error))]
    return []


def _training(resolved: Resolved, machines: hardware.Hardware) -> list[Fault]:
    """Faults of one training run: trainer, batch size, data."""
    recipe = resolved.recipe
    backend = backends.load(recipe.trainer)
    faults = [*online.faults(resolved), *_placed(resolved, _preference(recipe)), *model_faults(resolved, machines)]
    faults += _placed(resolved, _loggers(recipe, backend.env, machines.device))
    if recipe.method not in backend.methods:
        known = ", ".join(backend.methods)
        faults.append(resolved.fault("method", f"{recipe.trainer} supports {known}, not {recipe.method}"))
    if not any(fault.key == "train.global_batch" for fault in faults):
        faults += _caught(resolved, lambda: plan.derive_batch(resolved, machines))
    return faults + _caught(resolved, lambda: sources.check_data(resolved, backend.export(recipe)))


def model_faults(resolved: Resolved, machines: hardware.Hardware) -> list[Fault]:
    """Faults that follow from the trainer and from the model's files, if they are local. Raises UserError."""
    faults = backends.load(resolved.recipe.trainer).check(resolved, machines)
    return [*faults, *_placed(resolved, (*_lengths(resolved.recipe), *_quantised(resolved.recipe)))]


def _quantised(recipe: Recipe) -> Findings:
    """Quantised weights, unless the trainer dequantises them."""
    # models in the catalogue are not quantised; a lookup in the Hub cache takes 0.1 s
    place = None if models.known(recipe.model) else models.folder(recipe.model, recipe.revision)
    given = models.read_config(place).get("quantization_config") if place else None
    method = given.get("quant_method", "quantised") if isinstance(given, dict) else None
    if method and method not in backends.load(recipe.trainer).dequantises:
        yield "model", f"the weights of {recipe.model!r} are quantised ({method}): use bf16 weights"


def _revision(resolved: Resolved) -> Findings:
    """A revision that belongs to another model."""
    model, revision = resolved.recipe.model, resolved.recipe.revision
    if revision and Path(model).is_dir():
        yield "revision", f"applies to Hub models only, and {model!r} is a local folder: set it to null"
    elif revision and COMMIT.fullmatch(revision) and (others := compose.models_at(revision)) and model not in others:
        other = ", ".join(map(repr, sorted(others)))
        yield "revision", f"{revision} is a revision of {other}, not of {model!r}: set it to null"


def _zero(resolved: Resolved) -> Findings:
    """A zero model's template prompts for one format, which the rewards must parse, and applies to base models only."""
    zero, format = resolved.recipe.zero, resolved.recipe.thinking or "none"
    if zero is None:
        return
    if resolved.begins_with:
        yield "zero", f"prompts a base model, but the recipe starts from {resolved.begins_with}: set model_of to null"
    try:
        matches = thinking(format).tags == PRESETS[zero].tags
    except rewards.RewardError:
        return  # an unknown format, reported separately
    if not matches:
        yield (
            "thinking",
            f"{format!r} is not the format that the template of zero: {zero} prompts for: set it to {zero}",
        )


def _lengths(recipe: Recipe) -> Findings:
    """Sequences longer than the model's maximum length."""
    positions = recipe.positions or models.positions(recipe.model, recipe.revision)
    rollout, given = recipe.rollout, recipe.eval
    lengths = {
        "train.max_length": None if "rope_scaling" in recipe.native else recipe.train.max_length,
        "rollout.max_response_length": rollout and rollout.max_prompt_length + rollout.max_response_length,
        "eval.max_model_len": given and given.max_model_len,
    }
    for key, length in lengths.items():
        if positions and length and length > positions:
            what = (
                f"{length} tokens (prompt plus response)"
                if rollout and key.startswith("rollout")
                else f"{length} tokens"
            )
            yield key, f"{what} exceed the {positions} positions of {recipe.model!r}"


def _preference(recipe: Recipe) -> Findings:
    """Faults of preference optimisation that do not depend on the trainer."""
    preference = recipe.preference
    if recipe.method != "dpo":
        if preference is not None:
            yield "preference", f"is for method dpo, but method is {recipe.method}: remove it"
        return
    if recipe.train.packing:
        yield "train.packing", "pairs cannot be packed: remove it"
    if preference and preference.label_smoothing and preference.loss != "sigmoid":
        yield "preference.label_smoothing", f"only loss sigmoid supports it, not {preference.loss}: remove it"


def _loggers(recipe: Recipe, env: str, device: str) -> Findings:
    """Experiment trackers that are not available in the trainer's environment."""
    known = {"file"}.union(*envs.trackers(env, device))
    for index, name in enumerate(recipe.loggers):
        if name not in known:
            yield f"loggers.{index}", f"{recipe.trainer} cannot log to {name} here, only to {', '.join(sorted(known))}"


def _evaluation(resolved: Resolved) -> Findings:
    recipe, known = resolved.recipe, tasks.names()
    named = recipe.eval.tasks if recipe.eval else []
    for harness, names in harnesses.by_harness(recipe.eval).items():
        if harness != OURS:
            yield from ((fault.key, fault.message) for fault in harnesses.load(harness).faults(resolved, names))
            continue
        for name in names:
            yield from ((f"eval.tasks.{named.index(name)}", message) for message in _task(resolved, name))
    for name in {name for name in named if named.count(name) > 1}:
        yield "eval.tasks", f"{name!r} is listed {named.count(name)} times: keep one"
    for name in recipe.eval.paths if recipe.eval else ():
        key = f"eval.paths.{name}"
        if name not in named:
            yield key, f"not among eval.tasks; {did_you_mean(name, named)}"
        elif not resolved.path(key).exists():
            yield key, f"no such file: {resolved.path(key)}"
    for name, value in recipe.expect.items():
        if name not in (*known, *named):
            yield f"expect.{name}", f"no task of that name; {did_you_mean(name, known)}"
        elif harnesses.measured([name]).unit == "%" and not 0 <= value <= 100:
            yield f"expect.{name}", f"must be a percentage (0 to 100), not {value:g}"
    for key, lookup in (("system_prompt", tasks.known_prompt), ("thinking", thinking)):
        try:
            if (text := getattr(recipe, key)) is not None:
                lookup(text)
        except (ValueError, rewards.RewardError) as error:
            yield key, str(error)
    if recipe.eval and recipe.eval.n > 1 and recipe.eval.temperature == 0:
        yield "eval.n", f"{recipe.eval.n} greedy samples are identical: set eval.temperature, or n to 1"


def _task(resolved: Resolved, name: str) -> Iterator[str]:
    """Faults of one of our tasks, or of its local file, if it has one."""
    if name not in (known := tasks.names()):
        hint = f"{did_you_mean(name, known)} (set eval.harness for tasks of a harness)"
        yield f"no task {name!r} in configs/tasks; {hint}"
        return
    paths = sources.paths_of(resolved, [name])
    if all(Path(path).exists() for path in paths.values()):
        try:
            Load(LoadParams.model_validate({"task": name, "paths": paths})).peek(resolved.folder)
        except DataError as error:
            yield str(error)


def check_machine(made: Plan, parts: Sequence[str]) -> None:
    """Checks of the machine that will do the work: GPUs, disk, keys, sandbox. Raises UserError."""
    resolved, faults = made.resolved, []
    required, present = made.hardware.gpus_per_node, count_gpus()
    heavy = any(command.phase in parts and command.argv[0] != "core" for command in made.commands)
    if heavy and made.hardware.device == "cuda" and present < required:
        lacking = f"{resolved.recipe.hardware} needs {required} GPUs and this machine has {present}"
        remedy = "submit it (make sbatch/…), choose another profile (HARDWARE=), or run it at SCALE=mini"
        faults.append(resolved.fault("hardware", f"{lacking}: {remedy}"))
    needed = _disk_needed(made) if "train" in parts else DISK_MARGIN
    parent = next(path for path in (made.run, *made.run.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        lacking = f"{free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed"
        faults.append(Fault(str(parent), "", f"{lacking}: free some, or set --out"))
    faults += requirements.faults(made, parts)
    if faults:
        raise UserError(*faults)


def _disk_needed(made: Plan) -> float:
    """Bytes for the kept checkpoints (16 per parameter) and the final weights of every training."""
    recipe = made.resolved.recipe
    sizes, train = estimate.model_sizes(recipe.model, recipe.revision), recipe.train
    kept = train.keep_checkpoints + 1 if train.save_every else 0  # the oldest is deleted after the newest is saved
    if train.save_every and (steps := made.steps()):
        kept = min(kept, steps // train.save_every + 1)  # the last step is also saved
    trained = 0.02 if train.lora else 1.0  # fraction of the parameters in a LoRA checkpoint (upper bound)
    return len(made.jobs) * (sizes.params if sizes else 0) * (16 * kept * trained + 4) + DISK_MARGIN
