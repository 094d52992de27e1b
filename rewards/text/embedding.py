"""Reward `embedding`: cosine of the sentence embeddings of a completion and `row["references"]`, from 0 to 1.

    python -m rewards score --reward embedding --input rows.jsonl --output scored.jsonl

The encoder is static, in model2vec's format (https://github.com/MinishLab/model2vec): `tokenizer.json` and a table
of token vectors in `model.safetensors`. A text's embedding is the mean of its tokens' vectors. This needs no torch and
takes well under a millisecond per text. `model` is a folder, or an id on the Hub at `revision`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from rewards.base import Score
from rewards.errors import RewardError
from rewards.text.base import ReferenceReward, References

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILES = ("tokenizer.json", "model.safetensors")


class Encoder:
    """A static sentence encoder. Raises RewardError for a folder without one."""

    def __init__(self, folder: Path) -> None:
        import numpy as np
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        for name in FILES:
            if not (folder / name).is_file():
                raise RewardError(f"{folder}: not a static encoder: no {name} (model2vec's format)")
        try:
            tensors = load_file(folder / "model.safetensors")
        except SafetensorError as problem:
            raise RewardError(f"{folder / 'model.safetensors'}: {problem}") from None
        if "embeddings" not in tensors or tensors["embeddings"].ndim != 2:
            raise RewardError(f"{folder / 'model.safetensors'}: no table `embeddings`; it has {', '.join(tensors)}")
        if set(tensors) - {"embeddings"}:
            raise RewardError(f"{folder / 'model.safetensors'}: {', '.join(tensors)}: only a plain table is supported")
        self._vectors: NDArray[np.float32] = tensors["embeddings"].astype(np.float32)
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._unknown = self._tokenizer.token_to_id("[UNK]")
        if self._tokenizer.get_vocab_size() > len(self._vectors):
            raise RewardError(f"{folder}: {self._tokenizer.get_vocab_size()} tokens, but {len(self._vectors)} vectors")

    def encode(self, texts: Sequence[str], max_tokens: int) -> tuple[NDArray[np.float32], list[int]]:
        """Unit vectors of the texts (zero without a token in the vocabulary), shape (texts, size), and token counts."""
        import numpy as np

        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ids = [[token for token in item.ids if token != self._unknown] for item in encoded]
        means = np.zeros((len(ids), self._vectors.shape[1]), np.float32)
        for place, tokens in enumerate(ids):
            if tokens:
                means[place] = self._vectors[tokens[:max_tokens]].mean(axis=0)
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        return np.divide(means, norms, out=np.zeros_like(means), where=norms > 0), [len(tokens) for tokens in ids]


class Embedding(ReferenceReward):
    """Cosine of the text and the closest reference, at least 0.

    Details: tokens, truncated (number of truncated tokens). A text without a token in the encoder's vocabulary has
    value 0, outcome "no_answer".

    max_tokens: longer texts are truncated.
    """

    parallel = False  # workers cannot read model files
    model: str = "minishlab/potion-base-8M"
    revision: str = "bf8b056651a2c21b8d2565580b8569da283cab23"
    max_tokens: Annotated[int, Field(ge=1, le=1 << 20)] = 2048

    def check_ready(self) -> None:
        """Load the encoder. Raises RewardError."""
        _ = self.encoder

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, loaded at first use."""
        return Encoder(_folder(self.model, self.revision))

    def table(self, references: References) -> NDArray[np.float32] | None:
        vectors, lengths = self.encoder.encode(references, self.max_tokens)
        return vectors if any(lengths) else None

    def compare(self, table: NDArray[np.float32], texts: Sequence[str]) -> list[Score]:
        vectors, lengths = self.encoder.encode(texts, self.max_tokens)
        closest = (vectors @ table.T).max(axis=1)
        return [_score(float(value), length, self.max_tokens) for value, length in zip(closest, lengths, strict=True)]


def _score(value: float, length: int, max_tokens: int) -> Score:
    if not length:
        return Score(0.0, "no_answer", {"problem": "the encoder knows no token of the text"})
    details = {"tokens": length} | ({"truncated": length - max_tokens} if length > max_tokens else {})
    return Score(min(1.0, max(0.0, value)), "scored", details)


def _folder(model: str, revision: str) -> Path:
    """The encoder's folder, fetched from the Hub if it is not local. Raises RewardError."""
    if (local := Path(model).expanduser()).is_dir():
        return local
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(FILES)))
    except (OSError, ValueError) as problem:  # huggingface_hub's errors are among them
        reason = " ".join(str(problem).split())[:200]
        raise RewardError(
            f"encoder {model!r} at {revision[:12]} is not a local folder and cannot be fetched: {reason}"
        ) from None
