"""Inspects training rows as tokenised by torchtune's data set and our tokenizer component, in its environment.

    <torchtune python> -m launchers.plugins.torchtune.tokens FOLDER

Reads torchtune.yaml and inspect.json in FOLDER, and writes tokens.json. Exit status 2 with one line per fault.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from omegaconf import DictConfig

from launchers.checks import tokens
from launchers.checks.tokens import Inspection, Rendered, Vocabulary


def inspected(folder: Path, config: DictConfig) -> list[str]:
    """Write tokens.json; returns the faults. The config's tokenizer.path must be a local folder."""
    from torchtune import config as components
    from torchtune import data

    try:
        tokenizer = components.instantiate(config.tokenizer)
    except ValueError as problem:
        return [str(problem)]
    preference = "_dpo_" in config.posttrain.recipe
    given = {**config.dataset, **({} if preference else {"packed": False})}
    try:
        dataset = components.instantiate(DictConfig(given), tokenizer)
    except jinja2.TemplateError as problem:  # the data set renders nothing yet, but a subclass may
        return [f"the rows cannot be read: {problem}"]
    inspection = Inspection(
        tokens.settings(folder), "the model's own", _vocabulary(tokenizer, config.tokenizer.path), len(dataset)
    )
    for at in tokens.spread(len(dataset)):
        row = dataset._data[at]
        parts = (("chosen", "chosen_conversations"), ("rejected", "rejected_conversations")) if preference else (
            ("", "messages"),)  # fmt: skip
        try:
            sample = dataset[at]
        except (jinja2.TemplateError, ValueError) as problem:
            inspection.add_template_fault(row[parts[0][1]], problem)
            break
        for part, column in parts:
            ids, labels = (sample[f"{part}_{name}" if part else name] for name in (
                ("input_ids", "labels") if part else ("tokens", "labels")
            ))  # fmt: skip
            chat = row[column]
            own = _own(tokenizer, chat) if inspection.compares else None
            inspection.add(
                at, chat, Rendered(ids, [label != data.CROSS_ENTROPY_IGNORE_IDX for label in labels]), part, own
            )
    return inspection.write(folder)


def _own(tokenizer: Any, chat: Sequence[tokens.Message]) -> Rendered:
    """The conversation rendered and tokenised as one text."""
    ids = tokenizer.encode(tokenizer.render(chat))
    before = len(tokenizer.encode(tokenizer.render(chat[:-1], ask=True)))
    return Rendered(ids, [at >= before for at in range(len(ids))])


def _vocabulary(tokenizer: Any, path: str) -> Vocabulary:
    generation = Path(path) / "generation_config.json"
    configured = json.loads(generation.read_text()).get("eos_token_id") if generation.exists() else None
    ends = {tokenizer.eos_id, *(configured if isinstance(configured, list) else [configured])} - {None}
    return Vocabulary(tokenizer.decode, frozenset(tokenizer.special_tokens.values()), frozenset(ends), tokenizer.bos_id)


def main(argv: Sequence[str]) -> int:
    """Inspect one training's folder."""
    from launchers.plugins.torchtune import train

    folder = Path(argv[0]).resolve()
    config = train.compose(folder)
    config.tokenizer.path = train.fetched(config.tokenizer.path, config.posttrain.revision, weights=False)
    return tokens.print_faults(inspected(folder, config))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
