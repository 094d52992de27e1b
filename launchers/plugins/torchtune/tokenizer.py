"""A model's own tokenizer and chat template as torchtune's tokenizer component.

Evaluation asks the model through its chat template (vLLM), so training writes its conversations with the same one.
torchtune's own tokenizers know a template per model family, which leaves out the system prompts that Qwen2.5's and
Llama 3.1's templates add.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer


class ChatTokenizer:
    """torchtune's ModelTokenizer for the files of a Hugging Face folder.

    Prompt and answer are encoded apart, as they are when a model is asked. What comes after `max_seq_len` tokens is
    cut, and nothing is put in its place.
    """

    def __init__(self, path: str, max_seq_len: int | None = None) -> None:
        folder = Path(path)
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokens = {name: _text(config.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        self._template = _environment().from_string(_template(folder, config))
        self.max_seq_len = max_seq_len
        self.special_tokens = {
            token.content: number for number, token in self._tokenizer.get_added_tokens_decoder().items()
        }
        self.eos_id = self._id(self._tokens["eos_token"])
        pad = self._tokens["pad_token"] or self._tokens["eos_token"]
        self.pad_id = self._id(pad)
        self.bos_id = self._id(self._tokens["bos_token"]) if self._tokens["bos_token"] else None
        self.vocab_size = self._tokenizer.get_vocab_size()

    def _id(self, token: str | None) -> int:
        number = None if token is None else self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"tokenizer.json has no token {token!r}, which tokenizer_config.json names")
        return number

    def encode(self, text: str, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        """Token ids of a text that already says what is special in it."""
        assert not add_bos
        assert not add_eos
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        """The text of token ids, special ones too."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text

    def tokenize_messages(self, messages: Sequence[Any], **_: Any) -> tuple[list[int], list[bool]]:
        """torchtune Messages as tokens, and per token whether it is masked: all but what assistants said, ends too."""
        chat = [{"role": message.role, "content": message.text_content} for message in messages]
        tokens: list[int] = []
        mask: list[bool] = []
        written = ""
        for at, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt, complete = self.render(chat[:at], ask=True), self.render(chat[: at + 1])
            if not (prompt.startswith(written) and complete.startswith(prompt)):
                raise ValueError("the chat template does not write a conversation's turns one after the other")
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
        """A conversation as text; `ask` opens the assistant's turn."""
        known = {name: text for name, text in self._tokens.items() if text is not None}
        return self._template.render(messages=list(chat), add_generation_prompt=ask, **known)


def _text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _template(folder: Path, config: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")
    if isinstance(template, list):  # named templates
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise ValueError(f"{folder} has no chat template: neither chat_template.jinja nor one in tokenizer_config.json")
    return template


def _environment() -> ImmutableSandboxedEnvironment:
    """What transformers gives a chat template: it comes with a model, and is not trusted."""

    def refuse(message: str) -> str:
        raise jinja2.exceptions.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment
