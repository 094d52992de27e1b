"""The reference of steps and the JSON schema of data.yaml match the code and the recipes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from data_prep.core import reference
from data_prep.core.registry import STEPS
from data_prep.errors import DataError
from launchers import envs
from tests.conftest import REPO

SCHEMA = REPO / "configs" / "data.schema.json"
PIPELINES = sorted(REPO.glob("recipes/*/data.yaml"))
REGISTERED = [kind for kind, place in STEPS.items() if place.startswith("data_prep.")]
VALIDATE = """
import json, sys, jsonschema, yaml
schema = json.load(open(sys.argv[1]))
for path in sys.argv[2:]:
    for error in jsonschema.Draft202012Validator(schema).iter_errors(yaml.safe_load(open(path))):
        print(path, list(error.path), error.message[:200])
"""


def test_the_schema_is_that_of_the_code():
    done = subprocess.run(
        [sys.executable, "-m", "data_prep", "schema"], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout == SCHEMA.read_text(), "run `make schema`"


def validated(*paths) -> str:
    command = [str(envs.ensure("ray")), "-c", VALIDATE, str(SCHEMA), *map(str, paths)]  # Ray comes with jsonschema
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_recipes_pipelines_fit_the_schema():
    assert PIPELINES
    assert validated(*PIPELINES) == ""
    for path in PIPELINES:
        assert "# yaml-language-server: $schema=../../configs/data.schema.json\n" in path.read_text()


@pytest.mark.parametrize(
    "text",
    ["a: [{laod: {path: x}}]", "a: [{load: {pth: x}}]", "a: [{load: {path: x, limit: many}}]", "a: {load: {path: x}}"],
)
def test_invalid_pipelines_do_not_match_the_schema(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    assert validated(tmp_path / "data.yaml") != ""


@pytest.mark.parametrize("kind", REGISTERED)
def test_each_step_has_a_summary_an_example_and_its_parameters(kind):
    summary, *rest = reference.reference(kind).splitlines()
    assert summary.startswith(f"{kind}: ")
    assert any(line.startswith((f"- {kind}", f'{{"kind": "{kind}"')) for line in rest)
    assert "Parameters:" in rest


def test_parameters_are_shown_with_type_default_and_comment():
    assert (
        "  order: Literal['first', 'shortest', 'random'] = \"first\"    # order within a prompt for per_prompt"
        in reference.reference("select").splitlines()
    )


def test_an_unknown_step_names_the_nearest():
    with pytest.raises(DataError, match="no such kind of step: 'dedupe'; did you mean 'dedup'"):
        reference.reference("dedupe")


def test_a_line_for_each_step():
    assert [line.split()[0] for line in reference.listing().splitlines()] == list(STEPS)
    assert json.loads(SCHEMA.read_text())["title"] == "Pipelines of a family"
