"""The shipped mini coder is small, safe to load, what its recipe makes, and right about as often as its card says."""

from __future__ import annotations

import json
import math
import subprocess

import pytest

from data_prep.families.mini import build, evaluate
from data_prep.families.mini.worlds import WORLDS
from tests.data_prep.test_mini_model import ROOT, tensors

FUNCTIONS = WORLDS["functions"]
SHIPPED = ROOT / FUNCTIONS.folder
RECORD = json.loads((SHIPPED / "training.json").read_text())


def test_shipped_files_are_few_and_small():
    files = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    assert set(files) == {*build.AS_BUILT, build.WEIGHTS, "training.json", "README.md"}
    assert sum(files.values()) <= 2_500_000


def test_the_weights_are_those_of_the_shape():
    shapes = tensors(SHIPPED / build.WEIGHTS)
    assert sum(math.prod(shape) for shape in shapes.values()) == 493_184
    assert build.digest(SHIPPED / build.WEIGHTS) == RECORD["sha256"]["trained"]


def test_the_card_and_the_record_are_those_of_this_world():
    assert (SHIPPED / "README.md").read_text() == build.card(RECORD, FUNCTIONS)
    assert (RECORD["train"], RECORD["stop"], RECORD["batch"]) == (FUNCTIONS.train, FUNCTIONS.stop, FUNCTIONS.batch)
    assert RECORD["mix"] == {str(level): share for level, share in FUNCTIONS.mix.items()}


def test_the_card_describes_a_model_worth_training_further():
    for levels in (RECORD["levels"], RECORD["chains"]["long"]):
        by_level = {level: found["mean"] for level, found in levels.items()}
        assert by_level["1"] > by_level["2"] > by_level["3"] > 10
        assert 30 <= by_level["2"] <= 55


def test_tokenizer_and_config_are_rebuilt_byte_for_byte(llamafactory_python, tmp_path):
    command = [str(llamafactory_python), "-m", "data_prep.families.mini.model", str(tmp_path), "--subject", "functions"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for name in build.AS_BUILT:
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes(), name
    assert tensors(tmp_path / build.WEIGHTS) == tensors(SHIPPED / build.WEIGHTS)


def test_the_shipped_model_answers_as_its_card_says(llamafactory_python, tmp_path):
    asked = [
        "data_prep.families.mini.evaluate",
        str(SHIPPED),
        "--subject",
        "functions",
        "--levels",
        "2:80",
        "--samples",
        "1",
    ]
    asked += ["--seed", "9", "--max-tokens", str(FUNCTIONS.max_tokens)]
    now = json.loads(build.call(llamafactory_python, asked, tmp_path / "log"))["levels"]["2"]
    then = RECORD["levels"]["2"]
    assert now["mean"] == pytest.approx(then["mean"], abs=4 * math.hypot(now["stderr"], then["stderr"]))


def test_functions_are_judged_by_their_tests_and_not_by_their_text():
    (row,) = FUNCTIONS.rows({2: 1}, "test", 0)
    gold = row["completion"]
    same = gold.replace("```python\n", "```python\n# the same\n")
    answers = [gold, same, row["references"][0], gold.replace("return", "return None #"), ""]
    assert evaluate.right([row] * len(answers), answers) == [True, True, False, False, False]


@pytest.mark.full
def test_a_rebuild_from_the_seed_gives_the_shipped_model(llamafactory_python, tmp_path):
    record = build.build(tmp_path / "model", tmp_path / "work", llamafactory_python, RECORD["seed"], FUNCTIONS)
    now, then = record["levels"]["2"], RECORD["levels"]["2"]
    if record["sha256"]["untrained"] == RECORD["sha256"]["untrained"] and record["losses"] == RECORD["losses"]:
        assert record["sha256"]["trained"] == RECORD["sha256"]["trained"]
    assert record["steps"] == pytest.approx(RECORD["steps"], abs=60)
    assert now["mean"] == pytest.approx(then["mean"], abs=15)
