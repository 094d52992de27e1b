"""The shipped mini reasoner: what its recipe makes, and half right at both subjects, as its card says."""

from __future__ import annotations

import json
import math
import subprocess

import pytest

from data_prep.families.mini import build
from data_prep.families.mini.worlds import WORLDS
from rewards.thinking import thinking
from tests.data_prep.test_mini_model import ROOT, tensors

REASONER = WORLDS["both"]
SHIPPED = ROOT / REASONER.folder
RECORD = json.loads((SHIPPED / "training.json").read_text())


def test_files_weights_card_and_record_are_those_of_this_world():
    files = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    assert set(files) == {*build.AS_BUILT, build.WEIGHTS, "training.json", "README.md"}
    assert sum(files.values()) <= 2_500_000
    shapes = tensors(SHIPPED / build.WEIGHTS)
    assert sum(math.prod(shape) for shape in shapes.values()) == 501_376
    assert build.digest(SHIPPED / build.WEIGHTS) == RECORD["sha256"]["trained"]
    assert (SHIPPED / "README.md").read_text() == build.card(RECORD, REASONER)
    assert (RECORD["stop"], RECORD["share"]) == (REASONER.stop, REASONER.share)


def test_the_card_describes_a_model_worth_training_further():
    sums, functions = RECORD["levels"], RECORD["also"]["functions"]
    assert 30 <= sums["3"]["mean"] <= 55
    assert functions["1"]["mean"] > 50
    assert 10 <= functions["2"]["mean"] <= 55


def test_tokenizer_and_config_are_rebuilt_byte_for_byte_and_know_the_marks(llamafactory_python, tmp_path):
    command = [str(llamafactory_python), "-m", "data_prep.families.mini.model", str(tmp_path), "--subject", "both"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for name in build.AS_BUILT:
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes(), name
    counted = (
        "import sys; from transformers import AutoTokenizer; "
        "print(len(AutoTokenizer.from_pretrained(sys.argv[1])(sys.argv[2])['input_ids']))"
    )
    text = thinking("sky_t1").render("1", "2")
    command = [str(llamafactory_python), "-c", counted, str(SHIPPED), text]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(done.stdout) <= 32, f"{len(text)} characters"


@pytest.mark.full
def test_a_rebuild_from_the_seed_gives_the_shipped_model(llamafactory_python, tmp_path):
    record = build.build(tmp_path / "out", tmp_path / "work", llamafactory_python, RECORD["seed"], REASONER)
    now, then = record["levels"]["3"], RECORD["levels"]["3"]
    if record["sha256"]["untrained"] == RECORD["sha256"]["untrained"] and record["losses"] == RECORD["losses"]:
        assert record["sha256"]["trained"] == RECORD["sha256"]["trained"]
    assert record["steps"] == pytest.approx(RECORD["steps"], abs=80)
    assert now["mean"] == pytest.approx(then["mean"], abs=15)
