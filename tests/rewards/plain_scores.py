"""BLEU and ROUGE-L straight from their definitions: slow and short, as references for the fast ones.

tests/bench/text_reward.py holds these, in turn, against evaluate, sacrebleu and rouge-score themselves.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence


def tokens_13a(text: str) -> list[str]:
    """The rules of mteval-v13a in sequence."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, mark in {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}.items():
        text = text.replace(entity, mark)
    text = re.sub(r"([!-&(-+:-@/\[-`{-~])", r" \1 ", f" {text} ")
    text = re.sub(r"([^0-9])([.,])", r"\1 \2 ", text)
    text = re.sub(r"([.,])([^0-9])", r" \1 \2", text)
    text = re.sub(r"([0-9])(-)", r"\1 \2 ", text)
    return text.split()


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def matches(text: Sequence[str], references: Sequence[Sequence[str]], n: int) -> int:
    """The text's n-grams that occur in a reference, each counted at most as often as in one reference."""
    tables = [ngrams(reference, n) for reference in references]
    return sum(min(count, max(table[ngram] for table in tables)) for ngram, count in ngrams(text, n).items())


def nmt_bleu(text: str, references: Sequence[str]) -> float:
    """compute_bleu of tensorflow/nmt with smoothing, for one text."""
    tokens, tables = tokens_13a(text), [tokens_13a(reference) for reference in references]
    precisions = [
        (matches(tokens, tables, n) + 1.0) / (max(0, len(tokens) - n + 1) + 1.0) for n in range(1, 5)
    ]  # fmt: skip
    mean = math.exp(sum(0.25 * math.log(precision) for precision in precisions))
    ratio = len(tokens) / min(map(len, tables))
    return mean * (1.0 if ratio > 1.0 else math.exp(1 - 1.0 / ratio))


def rouge_l(text: str, references: Sequence[str]) -> float:
    """Largest rougeL F-measure of rouge-score over the references."""
    return max(_rouge_l(_words(text), _words(reference)) for reference in references)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _rouge_l(text: list[str], reference: list[str]) -> float:
    common = _common(text, reference)
    if not common:
        return 0.0
    precision, recall = common / len(text), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def _common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for token in one:
        before = row
        row = [0]
        for i, candidate in enumerate(other):
            row.append(before[i] + 1 if token == candidate else max(before[i + 1], row[i]))
    return row[-1]
