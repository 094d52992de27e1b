"""Experiment trackers: which a trainer can log to, and one run in each for a run directory, resumed with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from launchers import envs
from launchers.checks import preflight
from launchers.errors import UserError
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.targets.local import local_script
from tests.conftest import Repo

NAMES = {"llamafactory": "min_o1/sft_short", "verl": "min_o1/grpo", "torchtune": "min_o1/sft_short"}


def planned(trainer: str, loggers: str) -> plan.Plan:
    pairs = compose.parse_settings([f"trainer={trainer}", f"loggers={loggers}"])
    resolved, faults = preflight.check(compose.resolve(NAMES[trainer], Overrides("mini", tuple(pairs))))
    if faults:
        raise UserError(*faults)
    return plan.build(resolved, Path("/runs/20260131-090000-abcdef01"))


@pytest.mark.parametrize(
    ("trainer", "loggers", "known"),
    [
        ("llamafactory", "trackio", "file, mlflow, tensorboard, wandb"),
        ("verl", "mlflow", "file, tensorboard, trackio, wandb"),
        ("torchtune", "mlflow", "file, tensorboard, wandb"),
    ],
)
def test_a_tracker_that_the_trainer_lacks_is_refused(trainer: str, loggers: str, known: str) -> None:
    with pytest.raises(UserError) as refused:
        planned(trainer, f"[{loggers}]")
    (fault,) = refused.value.faults
    assert fault.message == f"{trainer} cannot log to {loggers} here, only to {known}"
    planned(trainer, f"[{known}]")


def test_a_run_directory_has_one_run_in_each_tracker() -> None:
    for trainer in NAMES:
        made = planned(trainer, "[file, wandb]")
        (train,) = [command for command in made.commands if command.phase == "train" and command.label == "after"]
        environ = dict(train.environ)
        assert (environ["TRACKER_RUN"], environ["TRACKER_PROJECT"]) == ("20260131-090000-abcdef01-after", "min_o1")
        assert environ["TRACKERS"] == "file,wandb"
        assert ("--trackers" in local_script(made)) is (trainer != "verl"), "verl's lock has it"
    assert "--trackers" not in local_script(planned("llamafactory", "[file]"))


def test_packages_of_trackers_change_nothing_that_is_pinned() -> None:
    for layer in (envs.LOCKS / "trackers").glob("*.txt"):
        added = dict(line.split("==") for line in layer.read_text().split())
        for device in ("cpu", "cuda"):
            if not envs.trackers(layer.stem, device)[1]:
                continue  # the lock has them all
            lines = envs.lock_file(layer.stem, device).read_text().split()
            pinned = dict(line.split("==") for line in lines if "==" in line)
            shared = added.keys() & pinned.keys()
            assert {name: added[name] for name in shared} == {name: pinned[name] for name in shared}


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("trainer", "loggers"),
    [
        ("llamafactory", "wandb,tensorboard,mlflow"),
        ("torchtune", "wandb,tensorboard"),
        ("verl", "wandb,tensorboard,trackio"),
    ],
)
def test_a_resumed_training_goes_on_with_its_run_in_each_tracker(repo: Repo, trainer: str, loggers: str) -> None:
    short = f"trainer={trainer} loggers=[{loggers}] controls=null validation=null stop=null"
    short += " train.steps=4 train.epochs=null train.save_every=2 train.log_every=1"
    words = [word for setting in short.split() for word in ("--set", setting)]
    for attempt, verb in enumerate(("data", "train", "train")):
        if attempt == 2:  # killed after its first checkpoint
            train = next(repo.path.glob(f"runs/{NAMES[trainer]}/*/train"))
            for path in [*train.glob("*checkpoint*-4"), *train.glob("*/global_step_4"), *train.glob("step_4")]:
                shutil.rmtree(path)
            shutil.rmtree(train / "merged", ignore_errors=True)
            for name in ("train_results.json", "model.safetensors", "trainer_state.json"):
                (train / name).unlink(missing_ok=True)
            if (last := train / "checkpoints" / "latest_checkpointed_iteration.txt").exists():
                last.write_text("2")
        done = repo.launch(verb, NAMES[trainer], "--scale", "mini", *words, WANDB_MODE="offline")
        assert done.returncode == 0, done.stderr[-3000:]
    name = f"{train.parent.name}-after"
    offline = [path.name for path in train.glob("**/wandb/offline-run-*")]
    assert [path.endswith(name) for path in offline] == [True, True], offline
    assert list(train.glob("tensorboard/**/events.out.*"))
    if "mlflow" in loggers:
        (losses,) = train.glob("mlruns/*/*/metrics/loss")
        assert [int(line.split()[2]) for line in losses.read_text().splitlines()] == [1, 2, 3, 4, 3, 4]
    if "trackio" in loggers:
        assert list(train.glob("trackio/*.db"))
    assert json.loads((train.parent / "run.json").read_text())["status"] == "partial"
