"""The shipped mini models: small, safe to load, reproducible, and as accurate as their cards say."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from data_prep.core.fingerprint import file_hash
from data_prep.errors import DataError
from data_prep.families.mini import build, curriculum, evaluate
from data_prep.families.mini.worlds import WORLDS
from rewards.thinking import thinking

ROOT = Path(__file__).parents[2]
ARITHMETIC = WORLDS["arithmetic"]
SHIPPED = ROOT / ARITHMETIC.folder
RECORDS = {name: json.loads((ROOT / world.folder / "training.json").read_text()) for name, world in WORLDS.items()}
RECORD = RECORDS["arithmetic"]
every_world = pytest.mark.parametrize("name", WORLDS)


def tensors(path: Path) -> dict[str, list[int]]:
    """Shapes in a safetensors file, from its header (8 bytes of length, then JSON)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    assert {tensor["dtype"] for tensor in header.values()} == {"F32"}
    return {name: tensor["shape"] for name, tensor in header.items()}


@every_world
def test_shipped_files_are_few_small_and_without_pickle(name):
    shipped = ROOT / WORLDS[name].folder
    files = {path.name: path.stat().st_size for path in shipped.iterdir()}
    assert set(files) == {*build.AS_BUILT, build.WEIGHTS, "training.json", "README.md"}
    assert sum(files.values()) <= 2_500_000
    parameters = {"arithmetic": 484_992, "functions": 493_184, "both": 501_376}[name]
    shapes = tensors(shipped / build.WEIGHTS)
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters
    assert shapes["model.embed_tokens.weight"] == [WORLDS[name].vocab, 128]
    assert file_hash(shipped / build.WEIGHTS) == RECORDS[name]["sha256"]["trained"]


@every_world
def test_the_card_and_the_record_are_those_of_this_world(name):
    world, record = WORLDS[name], RECORDS[name]
    assert (ROOT / world.folder / "README.md").read_text() == build.card(world.card, record)
    assert (record["train"], record["stop"], record["batch"]) == (world.train, world.stop, world.batch)
    assert record["mix"] == {str(level): share for level, share in world.mix.items()}
    assert record.get("share", 0) == world.share


def means(levels: dict) -> dict[str, float]:
    return {level: found["mean"] for level, found in levels.items()}


def test_the_cards_describe_models_worth_training_further():
    sums = means(RECORD["levels"])
    assert 25 <= sums["3"] <= 70
    assert sums["5"] < 5
    assert sums["2"] > sums["3"] > sums["4"] > sums["5"]
    for levels in (RECORDS["functions"]["levels"], RECORDS["functions"]["chains"]["long"]):
        functions = means(levels)
        assert functions["1"] > functions["2"] > functions["3"] > 10
        assert 30 <= functions["2"] <= 55
    sums, functions = means(RECORDS["both"]["levels"]), means(RECORDS["both"]["also"]["functions"])
    assert 30 <= sums["3"] <= 55
    assert functions["1"] > 50
    assert 10 <= functions["2"] <= 55


@every_world
def test_tokenizer_and_config_are_rebuilt_byte_for_byte(llamafactory_python, tmp_path, name):
    shipped = ROOT / WORLDS[name].folder
    build.ask(llamafactory_python, "model:build", tmp_path / "log", out=str(tmp_path / "model"), seed=0, subject=name)
    for file in build.AS_BUILT:
        assert (tmp_path / "model" / file).read_bytes() == (shipped / file).read_bytes(), file
    assert tensors(tmp_path / "model" / build.WEIGHTS) == tensors(shipped / build.WEIGHTS)


def test_the_reasoners_tokenizer_has_the_tags(llamafactory_python):
    program = (
        "import sys; from transformers import AutoTokenizer; "
        "print(len(AutoTokenizer.from_pretrained(sys.argv[1])(sys.argv[2])['input_ids']))"
    )
    text = thinking("sky_t1").render("1", "2")
    command = [str(llamafactory_python), "-c", program, str(ROOT / WORLDS["both"].folder), text]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(done.stdout) <= 32, f"{len(text)} characters"


@pytest.mark.parametrize("environment", ["llamafactory_python", "vllm_python"])
def test_any_text_round_trips_and_digits_are_single_tokens(environment, request):
    program = (
        "import json, sys; from transformers import AutoTokenizer\n"
        "t = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "ids = [t(text)['input_ids'] for text in json.load(sys.stdin)]\n"
        "print(json.dumps([[t.decode(i) for i in ids], t.convert_ids_to_tokens(ids[0])]))"
    )
    texts = [
        "12+345=?",
        "e\u0301 日本 👍🏽\u200d \x00\x7f",
        " a  b\t\n\n c ",
        "<think>\\boxed{½}</think>",
        "\ufeff\ufffd",
    ]
    command = [str(request.getfixturevalue(environment)), "-c", program, str(SHIPPED)]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    decoded, tokens = json.loads(done.stdout.splitlines()[-1])
    assert decoded == [unicodedata.normalize("NFC", text) for text in texts]
    assert tokens == ["1", "2", "+", "3", "4", "5", "=?"]


@pytest.mark.full
def test_the_first_steps_of_a_rebuild_repeat_the_recorded_losses(llamafactory_python, tmp_path):
    build.write_inputs(tmp_path, RECORD["seed"], ARITHMETIC)
    build.train(tmp_path, llamafactory_python, RECORD["seed"], ARITHMETIC, stop_at=10)
    assert build.losses(tmp_path)["10"] == pytest.approx(RECORD["losses"]["10"], abs=1e-3)


@pytest.mark.full
@pytest.mark.parametrize(("name", "counts"), [("arithmetic", {3: 150, 5: 20}), ("functions", {2: 80})])
def test_the_shipped_model_answers_as_its_card_says(llamafactory_python, tmp_path, name, counts):
    world, then = WORLDS[name], RECORDS[name]["levels"]
    given = {"subject": name, "levels": counts, "samples": 1, "seed": 9, "max_tokens": world.max_tokens}
    model = str(ROOT / world.folder)
    now = build.ask(llamafactory_python, "evaluate:evaluate", tmp_path / "log", model=model, **given)["levels"]
    for level, result in now.items():
        tolerance = 15 if level == "5" else 4 * math.hypot(result["stderr"], then[level]["stderr"])
        assert result["mean"] == pytest.approx(then[level]["mean"], abs=tolerance)


@pytest.mark.parametrize(("target", "status", "evaluations"), [(0, 0, 1), (101, 3, 2)])
@pytest.mark.full
def test_training_stops_at_the_target_or_says_that_it_was_missed(
    llamafactory_python, tmp_path, target, status, evaluations
):
    build.write_inputs(tmp_path, 0, ARITHMETIC)
    untrained = {"out": str(tmp_path / "untrained"), "seed": 0, "subject": "arithmetic"}
    build.ask(llamafactory_python, "model:build", tmp_path / "log", **untrained)
    config = json.loads((tmp_path / "train.yaml").read_text())
    (tmp_path / "train.yaml").write_text(json.dumps({**config, "max_steps": 4}))
    chats = tmp_path / "data/curriculum.json"
    chats.write_text(json.dumps(json.loads(chats.read_text())[:256]))
    held_out = curriculum.questions({3: 4}, "test")
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    plugin = ["-m", "launchers.plugins.llamafactory.stop_on_accuracy", str(tmp_path / "train.yaml")]
    options = ["--rows", str(tmp_path / "few.jsonl"), "--target", str(target), "--every", "2", "--max-tokens", "8"]
    command = [str(llamafactory_python), *plugin, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr[-2000:]
    curve = (tmp_path / "trained/accuracy.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in curve] == [2, 4][:evaluations]
    assert ("training ended below 101.0 % on level 3" in done.stderr) == (status == 3)
    assert (tmp_path / "trained" / build.WEIGHTS).exists()


def test_a_failing_part_is_named_with_its_log(tmp_path):
    with pytest.raises(DataError, match=f"mini model:build ended with status 1; its log is {tmp_path}/log"):
        build.ask(Path(sys.executable), "model:build", tmp_path / "log", nonsense=True)


def test_accuracy_counts_the_last_box_by_level_and_prompt():
    rows = [{"id": "a", "answer": "12", "meta": {"level": 2}}] * 2
    rows += [{"id": "b", "answer": "7", "meta": {"level": 2}}] * 2 + [{"id": "c", "answer": "5", "meta": {"level": 3}}]
    answers = ["\\boxed{1} \\boxed{12}", "\\boxed{12", "\\boxed{ 7 }", "\\boxed{7}", "5"]
    found = evaluate.accuracy(rows, answers)
    assert found["2"]["prompts"] == 2
    assert found["2"]["mean"] == pytest.approx(75.0)
    assert found["3"]["mean"] == 0.0


def test_functions_are_graded_by_tests_not_by_text():
    (row,) = WORLDS["functions"].rows({2: 1}, "test", 0)
    gold = row["completion"]
    same = gold.replace("```python\n", "```python\n# the same\n")
    answers = [gold, same, row["references"][0], gold.replace("return", "return None #"), ""]
    assert evaluate.right([row] * len(answers), answers) == [True, True, False, False, False]


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "level", "steps"), [("arithmetic", "3", 60), ("functions", "2", 60), ("both", "3", 80)]
)
def test_a_rebuild_from_the_seed_gives_the_shipped_model(llamafactory_python, tmp_path, name, level, steps):
    then = RECORDS[name]
    now = build.build(tmp_path / "model", tmp_path / "work", llamafactory_python, then["seed"], WORLDS[name])
    if now["sha256"]["untrained"] == then["sha256"]["untrained"] and now["losses"] == then["losses"]:
        assert now["sha256"]["trained"] == then["sha256"]["trained"]
    assert now["steps"] == pytest.approx(then["steps"], abs=steps)
    assert now["levels"][level]["mean"] == pytest.approx(then["levels"][level]["mean"], abs=15)
