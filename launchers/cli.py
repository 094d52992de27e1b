"""The launcher's command line, which the make targets call.

    python -m launchers <verb> <family>/<recipe> [--scale mini] [--set key=value]… [--out DIR] [--json]

Verbs: list show check plan render data train eval run study report submit stage logs cancel sweep status schema.
User errors are printed one per line, with exit status 2; a failed run prints one line, with exit status 1. Neither
prints a traceback.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from data_prep.errors import DataError
from launchers.envs import REPO, EnvError
from launchers.errors import Fault, RunError, UserError, did_you_mean, fail
from launchers.recipe import compose
from launchers.recipe.compose import Overrides, Resolved

if TYPE_CHECKING:
    from launchers.run.directory import Run
    from launchers.study.jobs import Jobs
    from launchers.study.spec import Study

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Recipes for post-training language models: validate, plan, run.",
)  # fmt: skip

Name = Annotated[str, typer.Argument(metavar="FAMILY/RECIPE", help="a recipe, or a run directory (not for show)")]
Scale = Annotated[str | None, typer.Option("--scale", help="overlay: mini runs on a laptop CPU")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. train.learning_rate=2e-5; repeatable")]
Out = Annotated[Path, typer.Option("--out", help="where run directories go")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Fresh = Annotated[bool, typer.Option("--fresh", help="start a new run even if the same one exists")]
To = Annotated[str | None, typer.Option("--to", metavar="STEP", help="stop after this step, and print its first rows")]
Target = Annotated[Literal["slurm", "skypilot"], typer.Option("--target", help="skypilot: also write its task file")]
FromMake = Annotated[bool, typer.Option("--make-variables", hidden=True)]
RUNS = REPO / "runs"
WHICH_RUN = ": set RUN=<dir> (`make status` lists the runs)"


def overrides(scale: str | None, pairs: Sequence[str] | None, from_make: bool) -> Overrides:
    """The overrides of the options and of make's SCALE, MODEL, DATA, HARDWARE, SITE and SET (environment variables)."""
    settings = compose.parse_settings(pairs or ())
    if from_make:
        scale = scale or os.environ.get("SCALE") or None
        named = [
            (name.lower(), os.environ[name], f"{name}=")
            for name in ("MODEL", "DATA", "HARDWARE", "SITE")
            if os.environ.get(name)
        ]
        settings = [*named, *compose.parse_settings(make_words("SET"), "SET="), *settings]
    return Overrides(scale, tuple((key, _absolute(key, text), option) for key, text, option in settings))


def make_words(variable: str) -> list[str]:
    """The key=value words of a make variable. Raises UserError."""
    try:
        return shlex.split(os.environ.get(variable, ""))
    except ValueError as error:
        raise fail(f"cannot be split into key=value words: {error}", f"{variable}=") from None


def _absolute(key: str, text: str) -> str:
    """A path option made absolute: the run may be resumed from another directory."""
    named = key in ("model", "data", "from_run") and ("/" in text or "." in text)
    may_be_path = named or key.startswith("eval.paths.")
    return str(Path(text).absolute()) if may_be_path and "\0" not in text and Path(text).exists() else text


def _resolve(name: str, given: Overrides, trains: bool = True) -> Resolved:
    """A recipe, resolved and checked; raises UserError with all faults."""
    from launchers.checks import preflight

    recipe_faults: tuple[Fault, ...] = ()
    try:
        resolved = compose.resolve(name, given)
    except UserError as error:
        recipe_faults = error.faults
        try:  # find other faults despite unknown keys
            resolved = compose.resolve(name, given, lenient=True)
        except UserError:
            raise error from None
    resolved, faults = preflight.check(resolved, trains)
    if recipe_faults or faults:
        raise UserError(*recipe_faults, *faults)
    return resolved


def locate(
    name: str, given: Overrides, out: Path, fresh: bool = False, first: Literal["do", "refuse", "pass"] = "refuse",
    trains: bool = True,
) -> Run:  # fmt: skip
    """The run of a recipe, to resume or create, or the run in directory `name`.

    `first`: what to do if the recipe of `model_of` has not been trained.
    """
    from launchers.run import directory, upstream

    if not directory.is_run(name):
        resolved = _resolve(name, given, trains)
        if first != "pass":
            (upstream.do_first if first == "do" else upstream.require_trained)(resolved, out)
        return directory.locate(upstream.with_trained_model(resolved, out) if trains else resolved, out, fresh, trains)
    if given.scale or given.settings or fresh:
        raise fail("options cannot change an existing run: use them with a recipe's name", name)
    return directory.at(Path(name))


def require_memory(run: Run, parts: Sequence[str] = ()) -> None:
    """Raises UserError if by the estimate the training does not fit into memory, unless ALLOW=oom is set.

    parts: the parts to run on this machine; its faults for these are reported in the same error.
    """
    from launchers.checks import preflight
    from launchers.plan import estimate

    text = estimate.oversize(run.plan)
    if not text or os.environ.get("ALLOW") == "oom":
        return
    fault = run.plan.resolved.fault("train.micro_batch", text)
    try:
        preflight.check_machine(run.plan, parts)
    except UserError as error:
        raise UserError(*error.faults, fault) from None
    raise UserError(fault)


def answer(as_json: bool, value: Any, print_text: Callable[[], object]) -> None:
    """Print a value as JSON, or as text with `print_text`."""
    if as_json:
        print(json.dumps(value, indent=1, ensure_ascii=False))
    else:
        print_text()


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List all recipes."""
    from launchers.recipe import catalogue

    rows = catalogue.catalogue()
    answer(as_json, rows, lambda: catalogue.print_catalogue(rows))


@app.command()
def show(name: Name, scale: Scale = None, set_: Set = None, as_json: Json = False, from_make: FromMake = False) -> None:
    """Show the resolved recipe, each value with its file and line."""
    from launchers.recipe import catalogue

    resolved = compose.resolve(name, overrides(scale, set_, from_make))
    values = {"recipe": resolved.recipe.model_dump(mode="json"), "where": catalogue.origins(resolved)}
    answer(as_json, values, lambda: catalogue.print_origins(resolved))


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(metavar="[FAMILY/RECIPE]")] = None,
    scale: Scale = None, set_: Set = None, out: Out = RUNS, as_json: Json = False, from_make: FromMake = False,
) -> None:  # fmt: skip
    """Validate one recipe, the first rows of its data file, and its training rows if they exist; or all recipes.

    On a site without a network, also check that everything is staged.
    """
    from launchers import backends
    from launchers.plan import pipelines
    from launchers.run import directory, tokens, upstream
    from launchers.targets import slurm

    given = overrides(scale, set_, from_make)
    chosen = [(name, given)] if name else [
        (recipe, replace(given, scale=size)) for recipe in compose.recipe_names()
        for size in (None, *compose.scales_of(recipe)) if given.scale in (None, size)
    ]  # fmt: skip
    faults: list[Fault] = []
    previews: list[str] = []
    for recipe, settings in chosen:
        try:
            resolved = _resolve(recipe, settings)
            if name:
                export = backends.load(resolved.recipe.trainer).export(resolved.recipe)
                previews += filter(None, [pipelines.preview(resolved, export)])
                faults += tokens.faults(resolved)
                if slurm.load_site(resolved.recipe.site, resolved.where("site")).offline:
                    from launchers.run import stage

                    stage.check(directory.locate(upstream.with_trained_model(resolved, out), out).plan)
        except UserError as error:
            faults += error.faults
    faults = list(dict.fromkeys(faults))
    summary = {"checked": len(chosen), "faults": [vars(fault) for fault in faults]}
    if as_json or not faults:
        lines = [*previews, f"{len(chosen)} checked, no faults"]
        answer(as_json, summary | ({"data": previews} if previews else {}), lambda: print("\n".join(lines)))
    if faults:
        raise typer.Exit(2) if as_json else UserError(*faults)


@app.command()
def plan(
    name: Name, scale: Scale = None, set_: Set = None, out: Out = RUNS, as_json: Json = False,
    fresh: Fresh = False, from_make: FromMake = False,
) -> None:  # fmt: skip
    """Show what would be done: cached and pending steps, batch, optimiser steps, memory, time, exact command lines."""
    from launchers.run import summary

    run = locate(name, overrides(scale, set_, from_make), out, fresh, first="pass")
    facts = summary.facts(run.plan)
    answer(as_json, facts, lambda: summary.print_facts(run, facts))


@app.command()
def render(
    name: Name, scale: Scale = None, set_: Set = None, out: Out = RUNS, as_json: Json = False,
    from_make: FromMake = False, target: Target = "slurm",
) -> None:  # fmt: skip
    """Write the run directory with native configs and scripts. An existing run directory is rendered again in place."""
    from launchers.render import write
    from launchers.run import directory
    from launchers.targets import skypilot

    run = locate(name, overrides(scale, set_, from_make), out, first="refuse" if target == "slurm" else "pass")
    task = skypilot.skypilot_task(run.plan) if target == "skypilot" else None
    directory.prepare(run)
    if task is not None:
        write(run.path / skypilot.FILE, task)
    answer(as_json, {"run": str(run.path), "files": sorted(directory.files(run.plan))}, lambda: print(run.path))


def _execute(
    name: str, parts: Sequence[str], given: Overrides, out: Path, fresh: bool, as_json: bool, trains: bool = True
) -> None:
    from launchers.run import directory, execute

    run = locate(name, given, out, fresh, first="do" if "report" in parts and trains else "refuse", trains=trains)
    run = directory.pinned(run)
    if run.finished:
        print(f"already finished; --fresh (make … FRESH=1) starts a new run: {run.path}", file=sys.stderr)
    else:
        if "train" in parts:
            require_memory(run, parts)
        execute.execute(run, parts)
    summary = execute.summary(run)
    if "report" in summary and not as_json:
        _print_headline(run.path)
    answer(as_json, summary, lambda: print(summary.get("report", run.path)))


def _print_headline(path: Path) -> None:
    """Print the report's verdict, and whether the published results are within the intervals."""
    from launchers.report.results import Results
    from launchers.report.verdict import verdict, within

    results = Results(path)
    for line in (verdict(results), *within(results)):
        print(line, file=sys.stderr)


def _part(part: str, about: str) -> None:
    def command(
        name: Name, scale: Scale = None, set_: Set = None, out: Out = RUNS, as_json: Json = False,
        fresh: Fresh = False, from_make: FromMake = False,
    ) -> None:  # fmt: skip
        from launchers.plan.plan import PARTS

        parts = PARTS if part == "run" else (part,)
        _execute(name, parts, overrides(scale, set_, from_make), out, fresh, as_json)

    command.__doc__ = about
    app.command(part)(command)


_part("run", "Run the whole recipe: data, training, evaluation, report.")
_part("train", "Only train; the data must exist.")


@app.command("eval")
def evaluate(
    name: Name, scale: Scale = None, set_: Set = None, out: Out = RUNS, as_json: Json = False, fresh: Fresh = False,
    model: Annotated[str | None, typer.Option("--model", help="evaluate this model, untrained (make: MODEL=)")] = None,
    from_make: FromMake = False,
) -> None:  # fmt: skip
    """Only evaluate: the trained model, or with --model any model with the recipe's benchmarks and sampling."""
    given = overrides(scale, set_, from_make)
    if model is not None:
        given = replace(given, settings=(*given.settings, ("model", _absolute("model", model), "--model")))
    trains = not any(option in ("MODEL=", "--model") for _, _, option in given.settings)
    _execute(name, ("eval",) if trains else ("eval", "report"), given, out, fresh, as_json, trains)


@app.command()
def data(
    name: Name, scale: Scale = None, set_: Set = None, out: Out = RUNS, as_json: Json = False,
    fresh: Fresh = False, to: To = None, from_make: FromMake = False,
) -> None:  # fmt: skip
    """Only make the training data, all of it or up to one step of the pipeline."""
    from launchers.run import inspect

    given, option = overrides(scale, set_, from_make), "--to"
    if to is None and from_make:
        to, option = os.environ.get("STEP") or None, "STEP="
    if to is None:
        _execute(name, ("data",), given, out, fresh, as_json)
        return
    step, folder = to, inspect.run_to(locate(name, given, out, fresh), to, option)
    answer(as_json, inspect.facts(step, folder), lambda: inspect.print_facts(step, folder))


@app.command()
def tokens(
    name: Name, scale: Scale = None, set_: Set = None, out: Out = RUNS, as_json: Json = False,
    fresh: Fresh = False, from_make: FromMake = False,
) -> None:  # fmt: skip
    """Show the first training rows as the trainer tokenises them: tokens with and without loss."""
    from launchers.run import tokens

    rows = tokens.inspect(locate(name, overrides(scale, set_, from_make), out, fresh))
    answer(as_json, rows, lambda: tokens.print_all(rows))
    tokens.require_no_faults(rows)


@app.command()
def study(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="a family with a study.yaml")],
    scale: Scale = None, set_: Set = None, out: Out = RUNS, as_json: Json = False, from_make: FromMake = False,
    seeds: Annotated[str | None, typer.Option("--seeds", help="override the study's seeds, e.g. 0,1,2")] = None,
    only: Annotated[str | None, typer.Option("--only", help="only these cells and those they need: cell,cell")] = None,
    on_slurm: Annotated[bool, typer.Option("--slurm", help="as Slurm jobs; default: here, one by one")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the submit lines and submit nothing")] = False,
) -> None:  # fmt: skip
    """Run an experiment: every cell of recipes/FAMILY/study.yaml with every seed, and one report."""
    from launchers.study import jobs, spec

    given = overrides(scale, set_, from_make)
    study = spec.load(family, given.scale, spec.parse_seeds(seeds), only and only.split(","), given.settings)
    do_study(study, out, jobs.prepare if on_slurm or dry_run else None, dry_run, as_json)


def do_study(study: Study, out: Path, prepare: Callable[[Study, Path], Jobs] | None, dry: bool, as_json: bool) -> None:
    """Run a study or a sweep here, or with `prepare` on Slurm (`dry`: only print the submit lines)."""
    from launchers.study import jobs, run

    if prepare is None:
        done = run.execute(study, out)
        answer(as_json, done, lambda: print(done["report"]))
        run.verdict(done)
        return
    prepared = prepare(study, out)
    numbers = [] if dry else jobs.submit(prepared)
    lines = [shlex.join(line) for line in prepared.lines]
    plan = {"study": str(prepared.path), "lines": lines, "jobs": numbers}
    answer(as_json, plan, lambda: print("\n".join(lines if dry else [*numbers, str(prepared.path)])))


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[FAMILY/RECIPE]")] = None, out: Out = RUNS,
    as_json: Json = False,
) -> None:  # fmt: skip
    """List runs: state, step, last heartbeat, job, logs."""
    from launchers.run import status

    if out.exists() and not out.is_dir():
        raise fail(f"{str(out)!r} is not a folder", "--out")
    states = status.of_all(out, name)
    if name and not states and name not in (known := compose.recipe_names()):
        raise fail(f"no such recipe, and no runs of it; {did_you_mean(name, known)}", key=name)
    answer(as_json, [vars(state) for state in states], lambda: status.print_all(states))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's or a study's directory")], as_json: Json = False
) -> None:
    """Write report.html of a run or a study."""
    from launchers.report import page as reporting
    from launchers.run import collect
    from launchers.study import page as study_report

    if (run / "study.json").is_file():
        path = study_report.build(run)
    elif (run / "resolved.json").is_file():
        collect.collect(run)
        path = reporting.build(run)
    else:
        raise fail(f"not a run directory (it has no resolved.json){WHICH_RUN}", str(run))
    answer(as_json, {"report": str(path)}, lambda: print(path))


@app.command(hidden=True)
def schema(markdown: Annotated[bool, typer.Option("--markdown", help="as configs/README.md")] = False) -> None:
    """Print the JSON schema of recipes, for configs/recipe.schema.json."""
    from launchers.recipe import schema_docs

    answer(not markdown, schema_docs.json_schema(), lambda: print(schema_docs.markdown(), end=""))


def main() -> None:
    """Entry point: prints user errors as single lines without tracebacks."""
    try:
        app(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (UserError, RunError, DataError, EnvError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(getattr(error, "status", 2))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discard what would be flushed at exit
        sys.exit(141)
    except OSError as error:
        print(f"error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if not hasattr(error, "format_message"):  # not an error about an unknown verb or option
            raise
        print(f"error: {error.format_message()} (python -m launchers --help)", file=sys.stderr)
        sys.exit(2)


from launchers import cluster_cli as cluster_cli  # noqa: E402  # registers the cluster verbs; imports names from above
