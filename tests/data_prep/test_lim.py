"""LIM scores by hand, and irregular samples of real runs."""

import json
from pathlib import Path

import making
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.core import pipeline
from data_prep.core.step import Drop
from data_prep.errors import DataError
from data_prep.families.min_o1.lim import epochs, lim_scores, read_steps, sample_files


def write_step(folder: Path, step: int, **prompts: list[float]) -> Path:
    """prompts: the accuracy of each sample of each prompt in this step."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"id": name, "acc": acc, "step": step} for name, found in prompts.items() for acc in found]
    return making.write_jsonl(folder / f"{step}.jsonl", lines)


def rows(names: str) -> list[dict]:
    return [{"id": name, "prompt": f"question {name}", "answer": "1"} for name in names]


def keep(folder: Path, names: str, **params):
    making.write_jsonl(folder / "in.jsonl", rows(names))
    manifest, found = making.run(folder, ("load", {"path": "in.jsonl"}), ("lim", {"run": "run", **params}))
    return manifest, {row["id"]: row["meta"]["lim"] for row in found}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two epochs of two steps; rates a: 0, 1; b: 0, 0; c: 0, 1/2; d: 1, 1/2. The means are 1/4 and 1/2."""
    folder = tmp_path / "run" / "train" / "samples"
    write_step(folder, 1, a=[0, 0], b=[0, 0])
    write_step(folder, 2, c=[0, 0], d=[1, 1])
    write_step(folder, 3, d=[0, 1], a=[1, 1])
    write_step(folder, 4, b=[0, 0], c=[1, 0])
    return folder


# sum (1 - m)^2 = 9/16 + 4/16 = 13/16. a: 1/16 + 4/16 = 5/16; b: 5/16; c: 1/16; d: 9/16.
BY_HAND = {"a": 8 / 13, "b": 8 / 13, "c": 12 / 13, "d": 4 / 13}


def test_scores_by_hand(tmp_path, run):
    manifest, found = keep(tmp_path, "abcd", threshold=0)
    assert found == pytest.approx(BY_HAND, abs=1e-9)
    assert manifest.drops == {}


def test_the_threshold_and_the_best(tmp_path, run):
    manifest, found = keep(tmp_path, "abcdx", threshold=0.6)
    assert set(found) == {"a", "b", "c"}
    assert manifest.drops == {"LIM score below threshold": 1, "never sampled": 1}
    manifest, found = keep(tmp_path, "abcd", n=1)
    assert set(found) == {"c"}
    assert manifest.drops == {"LIM score not among the best": 3}
    manifest, found = keep(tmp_path, "abcd", threshold=0.6, n=2)
    assert "c" in found
    assert len(found) == 2
    assert manifest.drops == {"LIM score below threshold": 1, "LIM score not among the best": 1}
    assert set(keep(tmp_path, "dcba", threshold=0.6, n=2)[1]) == set(found)  # a tie is not decided by order


def test_a_score_that_equals_the_threshold_stays():
    scores = lim_scores([{"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 0.0}])  # means 0, 1/2: 1 - (1/4) / (5/4)
    assert scores == {"a": 0.8, "b": 0.8}


def test_one_epoch():
    assert lim_scores([{"a": 1.0, "b": 0.0}]) == {"a": 0.0, "b": 0.0}  # mean 1/2: 1 - (1/4) / (1/4)


def test_always_solved_prompts_score_one():
    assert lim_scores([{"a": 1.0, "b": 1.0}] * 3) == {"a": 1.0, "b": 1.0}


def test_a_gap_takes_the_next_epochs_rate_and_no_other():
    first, second, third = {"a": 0.0, "b": 0.5}, {"a": 1.0}, {"a": 1.0, "b": 0.5, "late": 1.0}
    filled = {"a": 1.0, "b": 0.5}
    # "late" lacks epoch 1, for which only epoch 2 could stand in: it is in no mean either.
    assert lim_scores([first, second, third]) == lim_scores([first, filled, {"a": 1.0, "b": 0.5}])
    # The last epoch has no next one.
    assert set(lim_scores([{"a": 0.0, "b": 1.0}, {"a": 1.0}])) == {"a"}
    # A rate that was itself filled in fills nothing.
    assert set(lim_scores([{"a": 0.0}, {"a": 0.0}, {"a": 0.0, "b": 0.0}])) == {"a"}


def test_missing_prompts_are_drops_with_their_reason(tmp_path):
    folder = tmp_path / "run" / "samples"  # the folder of a training itself
    write_step(folder, 1, a=[0], b=[1])
    write_step(folder, 2, a=[1], c=[1])
    manifest, found = keep(tmp_path, "abc", threshold=-9)
    assert set(found) == {"a", "c"}  # c's first epoch takes the rate of its second
    assert manifest.drops == {"missing in an epoch": 1}


def test_epochs_end_at_a_repeated_prompt():
    # Seven prompts in batches of two: every epoch leaves one out, another each time.
    steps = ["ab", "cd", "ef", "ga", "bc", "de", "fg", "ab", "cd"]
    found = epochs([dict.fromkeys(step, 0.0) for step in steps])
    assert ["".join(one) for one in found] == ["abcdef", "gabcde", "fgabcd"]


def test_an_incomplete_last_epoch_is_ignored():
    found = epochs([dict.fromkeys(step, 0.0) for step in ("ab", "cd", "ba")])
    assert ["".join(one) for one in found] == ["abcd"]
    assert epochs([]) == []


@given(st.randoms(use_true_random=False), st.integers(1, 5), st.integers(5, 20), st.integers(1, 4))
def test_epochs_of_any_shuffled_batches_are_found(rng, batch, prompts, passes):
    length = prompts // batch
    steps = []
    for _ in range(passes):
        order = rng.sample(range(prompts), prompts)
        steps += [dict.fromkeys(map(str, order[at * batch : (at + 1) * batch]), 0.0) for at in range(length)]
    assert [len(one) for one in epochs(steps)] == [length * batch] * passes


def test_steps_that_a_resumed_run_repeated_count_once(tmp_path, run):
    # Killed in step 4 (a torn file), resumed after 2: verl writes the files of 3 and 4 anew.
    before = keep(tmp_path, "abcd", threshold=0)[1]
    write_step(run, 3, d=[1, 1], a=[0, 0])
    (run / "4.jsonl").write_text('{"id": "b", "acc"')
    assert keep(tmp_path, "abcd", threshold=0)[1] != before
    write_step(run, 3, d=[0, 1], a=[1, 1])
    write_step(run, 4, b=[0, 0], c=[1, 0])
    assert keep(tmp_path, "abcd", threshold=0)[1] == before


def test_steps_are_read_in_order_and_other_files_ignored(run):
    write_step(run, 10, a=[1])
    (run / "notes.jsonl").write_text("{}\n")
    assert [path.name for path in sample_files(run.parent)] == ["1.jsonl", "2.jsonl", "3.jsonl", "4.jsonl", "10.jsonl"]


def test_an_incomplete_line_is_skipped_and_counted(tmp_path, run):
    whole = keep(tmp_path, "abcd", threshold=0)[1]
    with (run / "4.jsonl").open("a") as file:
        file.write('{"id": "c", "acc": 0.')
    manifest, found = keep(tmp_path, "abcd", threshold=0)
    assert found == whole
    assert manifest.drops == {"unreadable sample": 1}
    assert "4.jsonl:5: not JSON" in manifest.examples["unreadable sample"][0]["detail"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"acc": 1}, "id is None"),
        ({"id": "a"}, "acc is None"),
        ({"id": "a", "acc": "1"}, "acc is '1'"),
        ({"id": "a", "acc": 2}, "acc is 2"),
    ],
)
def test_unreadable_samples(tmp_path, run, line, told):
    making.write_jsonl(run / "5.jsonl", [line])
    steps, unreadable = read_steps([run / "5.jsonl"])
    assert steps == [{}]
    assert unreadable == [Drop("unreadable sample", "", f"5.jsonl:1: {told}")]
    for path in run.glob("[1-4].jsonl"):
        path.unlink()
    with pytest.raises(DataError, match=f"no sample has an id and an acc.*{told}"):
        keep(tmp_path, "abcd", threshold=0)


def test_an_invalid_run_gives_one_clear_message(tmp_path, run):
    making.write_jsonl(tmp_path / "in.jsonl", rows("ab"))
    for folder, told in (("nowhere", "no such folder"), (".", "neither train/samples")):
        with pytest.raises(DataError, match=f"step 'lim': .*{told}"):  # before anything runs
            pipeline.plan(making.spec(tmp_path, ("load", {"path": "in.jsonl"}), ("lim", {"run": folder, "n": 1})))
    with pytest.raises(DataError, match="none of these 2 prompts was sampled"):
        keep(tmp_path, "xy", n=1)


def test_the_key_is_the_samples_content(tmp_path, run):
    making.write_jsonl(tmp_path / "in.jsonl", rows("ab"))

    def key(folder: str) -> str:
        return pipeline.plan(making.spec(tmp_path, ("load", {"path": "in.jsonl"}), ("lim", {"run": folder, "n": 1})))[
            -1
        ].key

    first = key("run")
    assert key("run/train") == first
    (tmp_path / "run").rename(tmp_path / "moved")
    assert key("moved") == first
    with (tmp_path / "moved/train/samples/1.jsonl").open("a") as file:
        file.write(json.dumps({"id": "a", "acc": 1}) + "\n")
    assert key("moved") != first


def test_samples_of_generated_rows_are_known_by_their_prompt(tmp_path, run):
    sampled = [{**row, "id": f"{row['id']}/0", "meta": {"prompt_id": row["id"]}} for row in rows("abcd")]
    making.write_jsonl(tmp_path / "in.jsonl", sampled)
    _, found = making.run(tmp_path, ("load", {"path": "in.jsonl"}), ("lim", {"run": "run", "n": 1}))
    assert [row["id"] for row in found] == ["c/0"]


def test_a_threshold_or_n_is_required():
    found = pipeline.parse("p", [{"load": {"path": "x"}}, {"lim": {"run": "r"}}])[1]
    assert [str(fault) for fault in found] == ["1.lim: give threshold (0.6 in LIMR), n, or both"]
