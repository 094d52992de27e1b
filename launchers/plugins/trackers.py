"""Sets the environment variables of experiment trackers: one run per training, which resumes with the training.

TRACKER_PROJECT and TRACKER_RUN name the run, TRACKERS lists the trackers (launchers/plan/plan.py). A tracker's address
or folder set by the user is kept; by default trackers write to the training's folder.
"""

import os
from pathlib import Path
from types import ModuleType


def prepare(folder: Path) -> None:
    """Set the variables of every tracker, before training processes start."""
    if (name := os.environ.get("TRACKER_RUN")) is None:
        return
    project = os.environ["TRACKER_PROJECT"]
    os.environ |= {"WANDB_RUN_ID": name, "WANDB_NAME": name, "WANDB_RESUME": "allow"}
    places = {
        "WANDB_PROJECT": project,
        "WANDB_DIR": str(folder), "TENSORBOARD_DIR": str(folder / "tensorboard"),
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"), "TRACKIO_DIR": str(folder / "trackio"),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(),
    }  # fmt: skip
    for variable, place in places.items():
        os.environ.setdefault(variable, place)
    if "mlflow" in os.environ["TRACKERS"].split(",") and os.environ.get("RANK", "0") == "0":
        os.environ["MLFLOW_RUN_ID"] = _mlflow_run(folder / "mlflow_run", project, name)


def _mlflow_run(record: Path, project: str, name: str) -> str:
    """The id of the MLflow run, created by the first attempt."""
    if not record.exists():
        from mlflow import MlflowClient

        client = MlflowClient()
        known = client.get_experiment_by_name(project)
        experiment = known.experiment_id if known else client.create_experiment(project)
        record.write_text(client.create_run(experiment, run_name=name).info.run_id)
    return record.read_text()


def resume_trackio(trackio: ModuleType) -> None:
    """Make trackio.init resume a run of the same name."""
    init = trackio.init

    def resumed(*args: object, **kwargs: object) -> object:
        return init(*args, **{"resume": "allow", **kwargs, "name": os.environ["TRACKER_RUN"]})

    trackio.init = resumed  # type: ignore[attr-defined]
