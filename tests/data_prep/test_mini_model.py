"""The shipped mini model is small, safe to load, and what its recipe makes."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import unicodedata
from pathlib import Path

import pytest

from data_prep.errors import DataError
from data_prep.families.mini import build, curriculum, evaluate
from data_prep.families.mini.worlds import WORLDS

ROOT = Path(__file__).parents[2]
ARITHMETIC = WORLDS["arithmetic"]
SHIPPED = ROOT / ARITHMETIC.folder
RECORD = json.loads((SHIPPED / "training.json").read_text())


def tensors(path: Path) -> dict[str, list[int]]:
    """Shapes in a safetensors file, from its header (8 bytes of length, then JSON)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    assert {tensor["dtype"] for tensor in header.values()} == {"F32"}
    return {name: tensor["shape"] for name, tensor in header.items()}


def test_shipped_files_are_few_small_and_hold_no_pickle():
    files = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    assert set(files) == {*build.AS_BUILT, build.WEIGHTS, "training.json", "README.md"}
    assert sum(files.values()) <= 2_500_000


def test_the_weights_are_those_of_the_shape():
    shapes = tensors(SHIPPED / build.WEIGHTS)
    assert sum(math.prod(shape) for shape in shapes.values()) == 484_992
    assert shapes["model.embed_tokens.weight"] == [320, 128]
    assert build.digest(SHIPPED / build.WEIGHTS) == RECORD["sha256"]["trained"]


def test_the_card_and_the_record_are_those_of_this_recipe():
    assert (SHIPPED / "README.md").read_text() == build.card(RECORD, ARITHMETIC)
    assert (RECORD["train"], RECORD["stop"], RECORD["batch"]) == (ARITHMETIC.train, ARITHMETIC.stop, ARITHMETIC.batch)
    assert RECORD["mix"] == {str(level): share for level, share in ARITHMETIC.mix.items()}


def test_the_card_describes_a_model_worth_training_further():
    by_level = {level: found["mean"] for level, found in RECORD["levels"].items()}
    assert 25 <= by_level["3"] <= 70
    assert by_level["5"] < 5
    assert by_level["2"] > by_level["3"] > by_level["4"] > by_level["5"]


def test_tokenizer_and_config_are_rebuilt_byte_for_byte(llamafactory_python, tmp_path):
    command = [str(llamafactory_python), "-m", "data_prep.families.mini.model", str(tmp_path), "--seed", "0"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for name in build.AS_BUILT:
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes(), name
    assert tensors(tmp_path / build.WEIGHTS) == tensors(SHIPPED / build.WEIGHTS)


@pytest.mark.parametrize("environment", ["llamafactory_python", "vllm_python"])
def test_any_text_survives_the_tokenizer_and_digits_stand_alone(environment, request):
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


def test_the_shipped_model_answers_as_its_card_says(llamafactory_python, tmp_path):
    asked = [
        "data_prep.families.mini.evaluate",
        str(SHIPPED),
        "--levels",
        "3:150,5:20",
        "--samples",
        "1",
        "--seed",
        "9",
    ]
    now = json.loads(build.call(llamafactory_python, asked, tmp_path / "log"))["levels"]
    then = RECORD["levels"]
    for level, tolerance in (("3", 4 * math.hypot(now["3"]["stderr"], then["3"]["stderr"])), ("5", 15)):
        assert now[level]["mean"] == pytest.approx(then[level]["mean"], abs=tolerance)


@pytest.mark.parametrize(("target", "status", "evaluations"), [(0, 0, 1), (101, 3, 2)])
@pytest.mark.full
def test_training_stops_at_the_target_or_says_that_it_was_missed(
    llamafactory_python, tmp_path, target, status, evaluations
):
    build.write_inputs(tmp_path, 0, ARITHMETIC)
    command = [str(llamafactory_python), "-m", "data_prep.families.mini.model", str(tmp_path / "untrained")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    config = json.loads((tmp_path / "train.yaml").read_text())
    (tmp_path / "train.yaml").write_text(json.dumps({**config, "max_steps": 4}))
    chats = tmp_path / "data/curriculum.json"
    chats.write_text(json.dumps(json.loads(chats.read_text())[:256]))
    held_out = curriculum.questions({3: 4}, "test")
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    plugin = ["-m", "launchers.plugins.llamafactory.stop_on_accuracy", str(tmp_path / "train.yaml")]
    options = [
        "--rows",
        str(tmp_path / "few.jsonl"),
        "--target",
        str(target),
        "--every",
        "2",
        "--max-tokens",
        "8",
    ]
    command = [str(llamafactory_python), *plugin, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr[-2000:]
    curve = (tmp_path / "trained/accuracy.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in curve] == [2, 4][:evaluations]
    assert ("training ended below 101.0 % on level 3" in done.stderr) == (status == 3)
    assert (tmp_path / "trained" / build.WEIGHTS).exists()


def test_a_failing_part_is_named_with_its_log(tmp_path):
    with pytest.raises(DataError, match=f"mini.model ended with status 2; its log is {tmp_path}/log"):
        build.call(Path(subprocess.sys.executable), ["data_prep.families.mini.model", "--nonsense"], tmp_path / "log")


def test_accuracy_counts_the_last_box_by_level_and_prompt():
    rows = [{"id": "a", "answer": "12", "meta": {"level": 2}}] * 2
    rows += [{"id": "b", "answer": "7", "meta": {"level": 2}}] * 2 + [{"id": "c", "answer": "5", "meta": {"level": 3}}]
    answers = ["\\boxed{1} \\boxed{12}", "\\boxed{12", "\\boxed{ 7 }", "\\boxed{7}", "5"]
    found = evaluate.accuracy(rows, answers)
    assert found["2"]["prompts"] == 2
    assert found["2"]["mean"] == pytest.approx(75.0)
    assert found["3"]["mean"] == 0.0


@pytest.mark.full
def test_a_rebuild_from_the_seed_gives_the_shipped_model(llamafactory_python, tmp_path):
    record = build.build(tmp_path / "model", tmp_path / "work", llamafactory_python, RECORD["seed"], ARITHMETIC)
    now, then = record["levels"]["3"], RECORD["levels"]["3"]
    if record["sha256"]["untrained"] == RECORD["sha256"]["untrained"] and record["losses"] == RECORD["losses"]:
        assert record["sha256"]["trained"] == RECORD["sha256"]["trained"]
    assert record["steps"] == pytest.approx(RECORD["steps"], abs=60)
    assert now["mean"] == pytest.approx(then["mean"], abs=15)
