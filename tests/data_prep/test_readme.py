"""data_prep/README.md matches the code."""

from __future__ import annotations

import re

import yaml

from data_prep.core import pipeline
from data_prep.core.pipeline import Spec
from data_prep.core.registry import STEPS
from tests.conftest import REPO

TEXT = (REPO / "data_prep/README.md").read_text()


def test_every_step_has_its_line():
    kinds = {kind for kind, place in STEPS.items() if place.startswith("data_prep.")}  # tests register their own
    links = dict(re.findall(r"\[`(\w+)`\]\(((?:steps|families)/[\w/]+\.py)\)", TEXT))
    assert set(links) == kinds - {"export"}  # which follows by itself
    assert [path for path in links.values() if not (REPO / "data_prep" / path).is_file()] == []


def test_its_pipeline_can_be_run(tmp_path):
    (shown,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (items,) = yaml.safe_load(shown.replace('"${eval.tasks}"', "[math500]")).values()
    steps, faults = pipeline.parse("mine", items)
    assert faults == []
    spec = Spec(name="mine", base=tmp_path, cache=tmp_path, steps=tuple(steps), max_drop_share=0.1)
    assert [job.name for job in pipeline.jobs(spec)] == [step.name for step in steps]
