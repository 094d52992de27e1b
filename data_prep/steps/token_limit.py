"""Drops rows and preference pairs that exceed the trainer's maximum length, in tokens of the trained model.

- token_limit: {model: "${model}", max_tokens: "${train.max_length}"}

A row's length is that of its prompt in the model's chat template, its completion and the end of the turn; for a pair
the longer side counts. Pairs whose sides have equal tokens are dropped as well.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from pydantic import Field

from data_prep.core.step import Apply, Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError
from data_prep.inference.models import find_model, tokenizer_folder
from data_prep.text.chat_template import ChatTemplate

END_TOKENS = 2  # the end token and ChatML's newline after it


class TokenLimitParams(Params):
    """model: folder or Hub id of the tokenizer. max_tokens: limit of prompt plus completion."""

    model: str
    revision: str | None = None
    max_tokens: int = Field(ge=1)


class TokenLimit(Step[TokenLimitParams]):
    """Keeps rows within the limit unchanged; drops the others with their length."""

    kind = "token_limit"
    passes = True
    needs: ClassVar[tuple[str, ...]] = ("prompt", "completion")
    packages: ClassVar[tuple[str, ...]] = ("tokenizers",)

    def fingerprint(self, base: Path) -> dict[str, Any]:
        return find_model(self.params.model, self.params.revision, base).identity()

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Load the tokenizer once for all shards. Raises DataError."""
        from tokenizers import Tokenizer

        folder = tokenizer_folder(find_model(self.params.model, self.params.revision, ctx.base))
        if not (folder / "tokenizer.json").is_file():
            raise DataError(f"model {self.params.model!r} has no tokenizer.json, which is needed to count tokens")
        try:
            template = ChatTemplate(folder)
        except (OSError, ValueError, jinja2.TemplateError) as error:
            raise DataError(f"model {self.params.model!r}: {error}") from None
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return ids

        yield lambda rows, shard: self._within(rows, template, encode)

    def _within(self, rows: Sequence[Row], template: ChatTemplate, encode: Callable[[str], list[int]]) -> Output:
        for row in rows:
            try:
                prompt = len(encode(template.render(row["prompt"], ask=True)))
            except jinja2.TemplateError as error:
                yield Drop("the chat template rejects the prompt", str(row["id"]), str(error), bad=True)
                continue
            sides = [encode(row[name]) for name in ("completion", "rejected") if name in row]
            length = prompt + max(map(len, sides)) + END_TOKENS
            if length > self.params.max_tokens:
                yield Drop("longer than max_tokens", str(row["id"]), f"{length:,} of {self.params.max_tokens:,} tokens")
            elif len(sides) == 2 and sides[0] == sides[1]:
                yield Drop("rejected equals completion in tokens", str(row["id"]))
            else:
                yield row
