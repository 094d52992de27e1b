"""The rewards chrf, keywords and embedding: against sacrebleu, by hand, and with an encoder built here."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sacrebleu import sentence_chrf
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import rewards
from data_prep.steps.score import ScoreParams, ScoreStep
from rewards.text.keywords import phrases_of, words
from tests.conftest import REPO

FRANCE = "The capital of France is Paris. It lies on the Seine, and has been the seat of kings since 987."
ANSWERS = {
    "the same": FRANCE,
    "reworded": "Paris, on the Seine, is the capital of France; kings have had their seat there since 987.",
    "short": "Paris.",
    "of something else": "Photosynthesis turns light into chemical energy; plants, algae and some bacteria do it.",
    "wordy": f"{FRANCE} {' '.join(['Besides, there is much more to be said about that.'] * 8)}",
}


def values(name: str, references: list[str], **params) -> dict[str, float]:
    reward = rewards.load(name, **params)
    scores = reward.score_many([{"references": references}] * len(ANSWERS), list(ANSWERS.values()))
    assert all(score.outcome == "scored" for score in scores)
    return dict(zip(ANSWERS, [score.value for score in scores], strict=True))


@pytest.mark.parametrize("order", [0, 2])
def test_chrf_equals_sacrebleu(order):
    references = [FRANCE, "It is Paris."]
    own = values("chrf", references, word_order=order)
    theirs = {name: sentence_chrf(text, references, word_order=order).score / 100 for name, text in ANSWERS.items()}
    assert own == theirs


def test_chrf_needs_no_spaces_between_words():
    reward = rewards.load("chrf")
    tokyo = "東京は日本の首都です。"
    assert reward.score({"references": [tokyo]}, tokyo).value == 1
    assert 0.3 < reward.score({"references": [tokyo]}, "日本の首都は東京です。").value < 1


def test_key_phrases_are_runs_without_stop_words():
    assert list(phrases_of(words("The capital of France is Paris, the City of Light!"), 3)) == [
        ("capital",), ("france",), ("paris",), ("city",), ("light",)
    ]  # fmt: skip
    assert list(phrases_of(words("large language models learn quickly"), 3)) == [
        ("large", "language", "models"), ("learn", "quickly")
    ]  # fmt: skip


def test_keywords_count_phrases_in_order():
    """capital, france, paris, lies, seine, seat, kings, 987: eight phrases."""
    reward = rewards.load("keywords")
    score = reward.score({"references": [FRANCE]}, ANSWERS["reworded"])
    assert score.details == {"phrases": 8, "matched": 4}  # seine capital france … kings/seat … 987
    assert score.value == 4 / 8
    backwards = " ".join(reversed(FRANCE.rstrip(".").split()))
    assert reward.score({"references": [FRANCE]}, backwards).value == 1 / 8
    assert values("keywords", [FRANCE])["the same"] == 1


def test_padding_lowers_keywords_f1():
    recall, f1 = values("keywords", [FRANCE]), values("keywords", [FRANCE], measure="f1")
    assert recall["wordy"] == recall["the same"] == 1
    assert f1["wordy"] < 0.6 < f1["the same"] == 1


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A static encoder of real words: co-occurrence in a few sentences, reduced to 8 dimensions."""
    sentences = [
        "paris is the capital of france", "london is the capital of england", "kings sit in the capital",
        "the seine flows through paris", "the thames flows through london", "plants turn light into chemical energy",
        "photosynthesis turns light into energy in plants", "algae and bacteria turn light into energy",
    ]  # fmt: skip
    vocabulary = {
        word: place for place, word in enumerate(["[UNK]", *sorted({w for s in sentences for w in s.split()})])
    }
    counts = np.eye(len(vocabulary))
    for sentence in sentences:
        ids = [vocabulary[word] for word in sentence.split()]
        for one in ids:
            counts[one, ids] += 1
    left, sizes, _ = np.linalg.svd(np.log1p(counts) - np.log1p(counts).mean(axis=0))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embeddings": (left[:, :8] * sizes[:8]).astype(np.float32)}, folder / "model.safetensors")
    return folder


def test_embedding_detects_meaning_without_shared_words(encoder):
    reward = rewards.load("embedding", model=str(encoder))
    row = {"references": ["Plants turn light into chemical energy.", "?"]}
    near, far = reward.score(row, "Photosynthesis in algae."), reward.score(row, "The Seine flows through Paris.")
    assert near.value > far.value + 0.2
    assert reward.score(row, row["references"][0]).value == pytest.approx(1)
    assert json.loads(json.dumps(near.as_json()))["details"] == {"tokens": 3}


def test_an_invalid_encoder_is_a_one_line_error(tmp_path, encoder):
    for name, said in (({"model": str(tmp_path)}, "no tokenizer.json"), ({"model": "a b/c"}, "cannot be fetched")):
        with pytest.raises(rewards.RewardError, match=said):
            rewards.load("embedding", **name).check_ready()
    (tmp_path / "tokenizer.json").write_bytes((encoder / "tokenizer.json").read_bytes())
    save_file({"weights": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(rewards.RewardError, match="no table `embeddings`; it has weights"):
        rewards.load("embedding", model=str(tmp_path)).check_ready()


@pytest.mark.parametrize("name", ["chrf", "keywords", "embedding"])
@pytest.mark.parametrize("blank", ["", " \n\t", "\f"])
def test_texts_without_words_are_neither_answers_nor_references(name, blank, encoder):
    reward = rewards.load(name, **({"model": str(encoder)} if name == "embedding" else {}))
    assert reward.score({"references": [FRANCE]}, blank).outcome == "no_answer"
    assert reward.score({"references": [blank]}, FRANCE).outcome == "error"
    assert reward.score({"references": []}, FRANCE).outcome == "error"
    assert reward.score({"references": [FRANCE]}, float("nan")).outcome == "error"
    assert reward.score({"references": [blank, FRANCE]}, FRANCE).value == pytest.approx(1)


@pytest.mark.parametrize("name", ["chrf", "keywords"])
def test_only_text_in_answer_tags_is_graded(name):
    reward = rewards.load(name)
    row = {"references": [FRANCE]}
    assert reward.score(row, f"<think>Hm, Lyon?</think><answer>{FRANCE}</answer>").value == 1


def test_bertscore_is_greedy_matching_and_needs_its_own_environment(tmp_path, vllm_python):
    script = REPO / "tests" / "rewards" / "bertscore_in_torch.py"
    environ = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [str(vllm_python), str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.stdout.strip() == "as by hand", done.stderr[-2000:]
    assert "has 2 layers: set layer to at most that" in done.stderr
    assert ScoreStep(ScoreParams(reward="bertscore")).env() == "vllm"
    with pytest.raises(rewards.RewardError, match="in the environment `vllm`"):
        rewards.load("bertscore").check_ready()
