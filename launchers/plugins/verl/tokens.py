"""Inspects rollout prompts as tokenised by verl's data set and tokenizer, in its environment.

    <verl python> -m launchers.plugins.verl.tokens FOLDER

Reads verl.yaml and inspect.json in FOLDER, and writes tokens.json. Exit status 2 with one line per fault.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from data_prep.text.chat_template import no_template
from launchers.checks import tokens
from launchers.checks.tokens import Inspection, Rendered
from launchers.plugins import own_template


def inspected(folder: Path, config: DictConfig) -> list[str]:
    """Write tokens.json; returns the faults. Only prompts are known before training."""
    from verl.utils import hf_tokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    place = str(config.actor_rollout_ref.model.path)
    tokenizer = hf_tokenizer(place)
    tokenizer.chat_template = config.actor_rollout_ref.model.get("custom_chat_template") or tokenizer.chat_template
    if not tokenizer.chat_template:
        return [no_template(str(tokens.settings(folder)["model"]))]
    data = OmegaConf.merge(config.data, {"filter_overlong_prompts": False})
    rows = RLHFDataset(str(data.train_files), tokenizer, data)
    inspection = Inspection(
        tokens.settings(folder), "the model's own", own_template.vocabulary(tokenizer, place, None), len(rows)
    )
    words = data.get("apply_chat_template_kwargs") or {}
    for at in tokens.spread(len(rows)):
        chat = rows.dataframe[at][data.prompt_key]
        own = own_template.rendered(tokenizer, chat, inspection) if inspection.compares else None
        if inspection.problems.get("other"):
            break
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False, **words)
        inspection.counts["too_long"] += len(ids) > data.max_prompt_length
        inspection.add(at, chat, Rendered(ids, [False] * len(ids)), own=own)
    return inspection.write(folder)


def main(argv: Sequence[str]) -> int:
    """Inspect one training's folder."""
    from launchers.plugins.verl import check, train

    folder = Path(argv[0]).resolve()
    config = check.compose(folder)
    train.pin_models(folder, config)
    return tokens.print_faults(inspected(folder, config))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
