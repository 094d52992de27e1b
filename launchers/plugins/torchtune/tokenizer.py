"""A torchtune tokenizer component with the model's own tokenizer and chat template.

Evaluation uses the model's chat template (vLLM), so training must use the same. torchtune's own tokenizers have one
template per model family, without the default system prompts of Qwen2.5's and Llama 3.1's templates.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_prep.text.chat_template import ChatTemplate


class ChatTokenizer:
    """torchtune's ModelTokenizer for the files of a Hugging Face folder.

    Prompt and answer are encoded separately, as in inference. Sequences are truncated at `max_seq_len` tokens, without
    appending an end token.
    """

    def __init__(self, path: str, max_seq_len: int | None = None) -> None:
        folder = Path(path)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._template = ChatTemplate(folder)
        named = self._template.tokens
        self.max_seq_len = max_seq_len
        self.special_tokens = {
            token.content: number for number, token in self._tokenizer.get_added_tokens_decoder().items()
        }
        self.eos_id = self._id(named["eos_token"])
        self.pad_id = self._id(named["pad_token"] or named["eos_token"])
        self.bos_id = self._id(named["bos_token"]) if named["bos_token"] else None
        self.vocab_size = self._tokenizer.get_vocab_size()

    def _id(self, token: str | None) -> int:
        number = None if token is None else self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"tokenizer.json has no token {token!r}, which tokenizer_config.json names")
        return number

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that already contains its special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        """The text of token ids, including special tokens."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text

    def tokenize_messages(self, messages: Sequence[Any], **_: Any) -> tuple[list[int], list[bool]]:
        """Token ids of torchtune Messages, and whether each token is masked (all but assistant turns with their end
        tokens)."""
        chat = [{"role": message.role, "content": message.text_content} for message in messages]
        tokens: list[int] = []
        mask: list[bool] = []
        written = ""
        for at, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt, complete = self.render(chat[:at], ask=True), self.render(chat[: at + 1])
            if not (prompt.startswith(written) and complete.startswith(prompt)):
                raise ValueError("the chat template does not render the turns of a conversation in sequence")
            for text, masked in ((prompt[len(written) :], True), (complete[len(prompt) :], bool(message.masked))):
                ids = self.encode(text)
                tokens += ids
                mask += [masked] * len(ids)
            written = complete
        return tokens[: self.max_seq_len], mask[: self.max_seq_len]

    def __call__(self, sample: Mapping[str, Any], inference: bool = False) -> Mapping[str, Any]:
        """A sample's messages as `tokens` and `mask`."""
        sample = dict(sample)
        sample["tokens"], sample["mask"] = self.tokenize_messages(sample.pop("messages"))
        return sample

    def render(self, chat: Sequence[Mapping[str, str]], ask: bool = False) -> str:
        """A conversation as text; `ask` adds the generation prompt."""
        return self._template.render(chat, ask)
