"""Rewards `rouge_l`, ROUGE-L F1 of a completion against `row["references"]`, from 0 to 1, and `bleu_rouge_f1`, the
harmonic mean of `bleu` and `rouge_l`.

    python -m rewards score --reward rouge_l --input rows.jsonl --output scored.jsonl

ROUGE-L is the largest rougeL F-measure over the references, by rouge-score (use_stemmer=False), as in
evaluate's rouge for one sample. Its tokens are runs of a-z and 0-9. If no reference has such a token ("не знаю"), where
every text would get 0, words and punctuation of any script are compared. Both rewards are BLEUBERI's
(training/dataset.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

from rapidfuzz.distance import LCSseq

from rewards.base import Score
from rewards.text.base import ReferenceReward, References
from rewards.text.bleu import Bleu
from rewards.text.tokenise import rouge_tokens, tokens_of_any_script

Table = tuple[Callable[[str], list[str]], list[list[str]]]  # the tokeniser, and the tokens of each reference


class RougeL(ReferenceReward):
    """ROUGE-L F1 of the text against the closest reference, from 0 to 1.

    Details: tokens, best (index of the deciding reference).
    A text without tokens has value 0, outcome "no_answer"; against a reference without tokens the F1 is 0."""

    def table(self, references: References) -> Table | None:
        tokens_of = rouge_tokens if any(map(rouge_tokens, references)) else tokens_of_any_script
        tokens = list(map(tokens_of, references))
        return (tokens_of, tokens) if any(tokens) else None

    def against(self, table: Table, text: str) -> Score:
        tokens_of, references = table
        tokens = tokens_of(text)
        if not tokens:
            return Score(0.0, "no_answer", {"problem": "the text has no token: ROUGE-L is undefined"})
        values = [_f1(LCSseq.similarity(tokens, reference), len(tokens), len(reference)) for reference in references]
        best = max(values)
        return Score(best, "scored", {"tokens": len(tokens), "best": values.index(best)})


def _f1(common: int, tokens: int, others: int) -> float:
    """F1, rounded like rouge-score."""
    return _harmonic(common / tokens, common / others) if common else 0.0


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


_ROUGE = RougeL()


class BleuRougeF1(Bleu):
    """Harmonic mean of `bleu` and `rouge_l`, 0 if both are 0. Parameters: those of `bleu`.

    Details: both rewards' details and values, under `bleu` and `rouge_l`."""

    def table(self, references: References) -> Any:
        """The tables of BLEU and ROUGE-L."""
        bleu, rouge = super().table(references), _ROUGE.table(references)
        return None if bleu is None or rouge is None else (bleu, rouge)

    def compare(self, table: Any, texts: Sequence[str]) -> list[Score]:
        bleu, rouge = table
        return list(map(_mean, super().compare(bleu, texts), _ROUGE.compare(rouge, texts)))


def _mean(bleu: Score, rouge: Score) -> Score:
    details = {name: {"value": part.value, **part.details} for name, part in (("bleu", bleu), ("rouge_l", rouge))}
    return Score(_harmonic(bleu.value, rouge.value), bleu.outcome, details)
