"""Reward `bertscore`: BERTScore F1 of a completion against the best of `row["references"]`.

    $(make -s env/vllm) -m rewards score --reward bertscore --input rows.jsonl --output scored.jsonl

Greedy matching of contextual token embeddings (Zhang et al., arXiv 1904.09675), like the package bert-score
without idf weights and without rescaling: special tokens such as [CLS] can be matched but are not averaged over.
Needs torch and transformers (environment `vllm`). Longer texts are truncated at the encoder's limit; the details
contain the number of truncated tokens.
"""

from functools import cached_property
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from rewards.base import Score
from rewards.errors import RewardError
from rewards.text.base import ReferenceReward, References


class Vectors(NamedTuple):
    """unit: unit vectors of a text's tokens, [tokens, size]. content: mask of tokens that are not special, [tokens].
    truncated: number of truncated tokens.
    """

    unit: Any
    content: Any
    truncated: int


class BertScore(ReferenceReward):
    """BERTScore F1, about 0 to 1. Details: best (index of the deciding reference), truncated.

    A blank text has value 0, outcome "no_answer"; blank references are ignored.

    model, revision: an encoder on the Hub, or a folder (revision ""). layer: the layer whose vectors are compared; 5 is
    bert-score's default for distilbert-base-uncased, BLEUBERI's encoder.
    """

    parallel = False  # workers cannot read model files
    model: str = "distilbert/distilbert-base-uncased"
    revision: str = "12040accade4e8a0f71eabdb258fecc2e7e948be"
    layer: Annotated[int, Field(ge=1, le=96)] = 5

    def check_ready(self) -> None:
        """Load the encoder. Raises RewardError."""
        _ = self._encoder

    @cached_property
    def _encoder(self) -> tuple[Any, Any]:
        """Tokenizer and model, loaded at first use."""
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise RewardError("bertscore needs torch and transformers: score in the environment `vllm`") from None
        version = {"revision": self.revision} if self.revision else {}
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(self.model, **version)
            model: Any = AutoModel.from_pretrained(self.model, **version)
        except (OSError, ValueError) as problem:
            raise RewardError(f"encoder {self.model!r}: {' '.join(str(problem).split())[:200]}") from None
        layers = model.config.num_hidden_layers
        if layers < self.layer:
            raise RewardError(f"encoder {self.model!r} has {layers} layers: set layer to at most that")
        return tokenizer, model.eval()

    def table(self, references: References) -> list[Vectors] | None:
        filled = [reference for reference in references if reference.strip()]
        return [self._vectors(reference) for reference in filled] or None

    def against(self, table: list[Vectors], text: str) -> Score:
        if not text:
            return Score(0.0, "no_answer", {"problem": "the text is blank"})
        vectors = self._vectors(text)
        values = [_f1(vectors, other) for other in table]
        details = {"best": values.index(max(values))} | ({"truncated": vectors.truncated} if vectors.truncated else {})
        return Score(max(values), "scored", details)

    def _vectors(self, text: str) -> Vectors:
        import torch

        tokenizer, model = self._encoder
        limit = model.config.max_position_embeddings
        tokens = len(tokenizer(text)["input_ids"])
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=limit)["input_ids"]
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[self.layer][0]
        special = torch.tensor([token in (tokenizer.cls_token_id, tokenizer.sep_token_id) for token in ids[0].tolist()])
        return Vectors(torch.nn.functional.normalize(states, dim=-1), ~special, max(0, tokens - ids.shape[1]))


def _f1(vectors: Vectors, other: Vectors) -> float:
    """Harmonic mean of precision and recall (mean best match per token); 0 if either text has no token."""
    if not (vectors.content.any() and other.content.any()):
        return 0.0
    similarity = vectors.unit @ other.unit.T
    precision = float(similarity.max(dim=1).values[vectors.content].mean())
    recall = float(similarity.max(dim=0).values[other.content].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
