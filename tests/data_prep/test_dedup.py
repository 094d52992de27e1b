"""Deduplication: exact after normalisation, near duplicates by Jaccard similarity, with the pair named."""

import random

import making
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import BENCHMARK

from data_prep.text.near_duplicates import alike, buckets, common_buckets, jaccard, prefixes, shingles, stride
from data_prep.text.normalise import normalised

INSTRUCTIONS = (
    "You are a careful tutor for pupils who prepare for a mathematics competition. Read the problem below to its "
    "end before you write anything. Then restate what is given and what is asked in a sentence or two of your "
    "own, choose a method, and carry it out step by step, so that a pupil of fourteen can follow each of your "
    "steps without looking anything up. Do not skip arithmetic, name each theorem that you use, and say where you "
    "use it. When you have a result, check it in another way, for instance by an estimate or by a small special "
    "case. If the check fails, say so, go back and look for the mistake. At the end write the final answer on a "
    "line of its own, inside a box, with its unit where there is one. "
)
NAMES = ("Ana", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Ines", "Jonas", "Kofi", "Leila", "Mei")
THINGS = ("apples", "marbles", "stamps", "pencils", "tickets", "candles", "bottles", "coins", "ribbons", "nails")
PLACES = ("at the market", "in a drawer", "from her aunt", "at the station", "in the garage", "on the ferry")


def near_duplicates(texts: list[str], threshold: float, ngram: int):
    """The pairs among some texts, in one shard."""
    counted = common_buckets([buckets(texts[:: stride(len(texts))], ngram)])
    return alike(texts.__getitem__, [prefixes(texts, counted, threshold, ngram)], threshold, ngram)


def story(rng: random.Random) -> str:
    """A word problem of about 30 words, rarely repeated."""
    parts = (
        f"{name} has {rng.randint(12, 999)} {rng.choice(THINGS)} {rng.choice(PLACES)}, gives away {rng.randint(2, 11)}"
        for name in rng.sample(NAMES, 3)
    )
    return ", ".join(parts) + "."


def dedup(folder, prompts: list[str], **params):
    making.write_jsonl(folder / "in.jsonl", [{"id": f"r{n}", "prompt": text} for n, text in enumerate(prompts)])
    manifest, kept = making.run(folder, ("load", {"path": "in.jsonl"}), ("dedup", params))
    return manifest, [row["id"] for row in kept]


def test_exact_duplicates_after_normalising(tmp_path):
    manifest, ids = dedup(tmp_path, ["What is  2+2?", "WHAT IS 2+2?", "What is ２+2?\n", "What is 2+3?"])
    assert ids == ["r0", "r3"]
    assert manifest.drops == {"duplicate": 2}
    assert manifest.examples["duplicate"][0] == {"row_id": "r1", "detail": "repeats r0: 'WHAT IS 2+2?'"}


def test_powers_bases_and_mixed_numbers_stay_distinct(tmp_path):
    prompts = [
        "What is 10²?",
        "What is 102?",
        "Write 101₂.",
        "Write 1012.",
        "Double 1½.",
        "Double 11⁄2.",
        "What is 10^2?",
    ]
    assert dedup(tmp_path, prompts)[1] == ["r0", "r1", "r2", "r3", "r4", "r5"]


def test_fields_decide_what_a_duplicate_is(tmp_path):
    rows = [{"prompt": "q", "completion": text} for text in ("a", "b", "a")]
    making.write_jsonl(tmp_path / "in.jsonl", rows)
    load = ("load", {"path": "in.jsonl"})
    assert len(making.run(tmp_path, load, ("dedup", {}))[1]) == 1
    assert len(making.run(tmp_path, load, ("dedup", {"fields": ["prompt", "completion"]}))[1]) == 2


def test_the_system_prompt_does_not_make_rows_alike():
    system = {"role": "system", "content": "a long system prompt that all rows share"}
    row = {"prompt": [system, {"role": "user", "content": "Short?"}]}
    assert normalised(row, ("prompt",)) == "short?"


def test_near_duplicates_are_found_and_others_kept(tmp_path):
    long = [text for text in BENCHMARK.values() if len(text.split()) > 35]
    manifest, ids = dedup(tmp_path, [*long, *(f"{text} Thanks!" for text in long)], near=0.8)
    assert ids == [f"r{n}" for n in range(len(long))]
    assert manifest.drops == {"near duplicate": len(long)}
    assert manifest.examples["near duplicate"][0]["detail"].startswith("repeats r0 (0.9")


def test_chinese_and_japanese_are_compared_by_characters(tmp_path):
    text = BENCHMARK["zh_train"] + BENCHMARK["ja_circle"]
    other = BENCHMARK["zh_balls"] + BENCHMARK["ja_sequence"]
    assert dedup(tmp_path, [text, text.replace("480", "520"), other], near=0.8)[1] == ["r0", "r2"]


def test_short_texts_are_compared_by_characters(tmp_path):
    _, ids = dedup(tmp_path, ["12+34=?", "12+34 =?", "98+76=?"], near=0.3, ngram=3)
    assert ids == ["r0", "r2"]


def test_prompts_that_share_instructions_are_compared_by_the_rest():
    """5,000 prompts with 145 shared words and 30 own words; one in 50 differs from its predecessor in one word."""
    rng = random.Random(1)
    prompts = [INSTRUCTIONS + story(rng) for _ in range(5000)]
    for at in range(50, 5000, 50):
        prompts[at] = prompts[at - 1].replace(" gives away", " loses", 1)
    pairs = [(later, earlier) for later, earlier, _ in near_duplicates(prompts, 0.9, 5)]
    assert pairs == [(at, at - 1) for at in range(50, 5000, 50)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc ", min_size=1, max_size=30), max_size=25), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_results_equal_all_pairs_comparison(texts, threshold):
    sets = [shingles(text, 3) for text in texts]
    kept: list[int] = []
    gone = {}
    for at, own in enumerate(sets):
        alike = [earlier for earlier in kept if jaccard(own, sets[earlier]) >= threshold]
        if alike:
            gone[at] = alike
        else:
            kept.append(at)
    pairs = list(near_duplicates(texts, threshold, 3))
    assert [later for later, _, _ in pairs] == list(gone)
    for later, earlier, similarity in pairs:
        assert earlier in gone[later]
        assert similarity == jaccard(sets[later], sets[earlier])


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_pairs_just_above_the_threshold_are_not_missed(threshold):
    rng = random.Random(2)
    size = 400
    shared = round(2 * size * threshold / (1 + threshold)) + 1
    for _ in range(30):
        words = rng.sample(range(10_000), 2 * size - shared)
        texts = [" ".join(map(str, words[:size])), " ".join(map(str, words[:shared] + words[size:]))]
        assert threshold <= jaccard(*(shingles(text, 1) for text in texts)) < threshold + 0.01
        assert list(near_duplicates(texts, threshold, 1))
