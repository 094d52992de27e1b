"""Length pairs: which samples form them, counts and seed, independence of the input order."""

import random

import making


def samples(name: str, *given: tuple[int, float], tokens: bool = False) -> list[dict]:
    """One row per (length, score)."""
    rows = []
    for n, (length, score) in enumerate(given):
        meta = {"prompt_id": name, "sample": n, **({"tokens": 1000 - length} if tokens else {})}
        text = f"{n}".ljust(length, "x")
        rows.append(
            {"id": f"{name}/{n}", "prompt": f"question {name}", "completion": text, "score": score, "meta": meta}
        )
    return rows


def pairs(folder, rows, **params):
    making.write_jsonl(folder / "in.jsonl", rows)
    manifest, found = making.run(folder, ("load", {"path": "in.jsonl"}), ("length_pairs", params))
    return manifest, {row["id"]: row for row in found}


def test_the_two_kinds_of_pairs(tmp_path):
    rows = [
        *samples("both", (30, 1), (10, 1), (50, 1), (20, 0), (5, 0)),
        *samples("one", (10, 1)),
        *samples("wrong", (10, 0), (20, 0)),
        *samples("alike", (10, 1), (10, 1)),
        *samples("short", (10, 1), (20, 0)),  # the wrong one is longer: nothing is too short here
    ]
    manifest, found = pairs(tmp_path, rows)
    assert list(found) == ["both/1>both/2", "both/1>both/4"]
    first, second = found.values()
    assert first["meta"] == {
        "prompt_id": "both", "pair": "shorter", "chosen_id": "both/1", "rejected_id": "both/2", "rejected_score": 1,
        "chosen_length": 10, "rejected_length": 50,
    }  # fmt: skip
    assert (len(first["completion"]), len(first["rejected"])) == (10, 50)
    assert second["meta"]["pair"] == "not_too_short"
    assert second["rejected"] == rows[4]["completion"]
    assert manifest.counts == {"shorter": 1, "not too short": 1}
    assert manifest.drops == {"question without a pair": 4}
    assert {"row_id": "one", "detail": "1 of 1 samples are right"} in manifest.examples["question without a pair"]


def test_the_shortest_right_one_that_is_longer_than_the_wrong_one(tmp_path):
    _, found = pairs(tmp_path, samples("q", (10, 1), (20, 0), (40, 1), (30, 1)))
    assert [name for name, row in found.items() if row["meta"]["pair"] == "not_too_short"] == ["q/3>q/1"]


def test_lengths_are_tokens_if_all_samples_have_them(tmp_path):
    _, found = pairs(tmp_path, samples("q", (10, 1), (20, 1), (30, 1), tokens=True))
    assert list(found) == ["q/2>q/0"], "the longest text has the fewest tokens here"


def test_ratio_drops_pairs_of_similar_length(tmp_path):
    rows = [*samples("a", (10, 1), (15, 1)), *samples("b", (10, 1), (20, 1))]
    assert list(pairs(tmp_path, rows, ratio=2.0)[1]) == ["b/0>b/1"]


def test_counts_by_seed_and_not_by_order(tmp_path):
    rows = [row for n in range(40) for row in samples(f"q{n}", (30, 1), (10, 1), (5, 0))]
    drawn = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        given = list(rows)
        if name == "b":
            random.Random(3).shuffle(given)
        manifest, found = pairs(tmp_path / name, given, n={"shorter": 7, "not_too_short": 3}, seed=seed)
        assert manifest.counts == {"shorter": 7, "not too short": 3}
        assert manifest.drops == {"not drawn": 70}
        drawn[name] = list(found)
    assert drawn["a"] == drawn["b"]
    assert set(drawn["a"]) != set(drawn["c"])
