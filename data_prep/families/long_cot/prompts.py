"""Chat prompts: single-turn conversations in chosen languages.

- chat_prompts: {languages: [en]}
- chat_prompts: {languages: []}      every language
"""

from collections.abc import Sequence
from typing import ClassVar

from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from rewards.thinking import PRESETS

MARKS = sorted({mark for preset in PRESETS.values() for mark in preset.tags})


class ChatPromptsParams(Params):
    """languages: ISO 639-1 codes; all if empty."""

    languages: tuple[str, ...] = ("en",)


class ChatPrompts(Step):
    """Keeps single-turn prompts in the given languages without thinking tags; drops the others by reason."""

    kind = "chat_prompts"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    packages: ClassVar[tuple[str, ...]] = ("py3langid",)
    passes = True
    Params = ChatPromptsParams
    params: ChatPromptsParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        for row in rows:
            reason = self._reason(row["prompt"])
            yield Drop(reason, str(row["id"])) if reason else row

    def _reason(self, prompt: Sequence[Row]) -> str:
        texts = [message["content"] for message in prompt if message["role"] == "user"]
        if not any(text.strip() for text in texts):
            return "empty prompt"
        if len(texts) > 1:
            return "more than 1 user turns"
        if any(mark in text for mark in MARKS for text in texts):
            return "thinking marks in the prompt"
        if self.params.languages and language("\n".join(texts)) not in self.params.languages:
            return "another language"
        return ""


def language(text: str) -> str:
    """ISO 639-1 code of the most likely language (py3langid, deterministic)."""
    from py3langid.langid import classify

    code: str = classify(text)[0]  # type: ignore[no-untyped-call]
    return code
