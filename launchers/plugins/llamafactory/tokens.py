"""Inspects training rows as tokenised by LlamaFactory's own template and processors, in its environment.

    <llamafactory python> -m launchers.plugins.llamafactory.tokens FOLDER

Reads llamafactory.yaml and inspect.json in FOLDER, and writes tokens.json. Exit status 2 with one line per fault.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launchers.checks import tokens
from launchers.checks.tokens import Inspection, Rendered

# Inspect in one process without a GPU, DeepSpeed or FSDP, however the training is started.
_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_NOT_HERE = {"use_cpu": True, "bf16": False, "fp16": False, "deepspeed": None, "fsdp": None, "fsdp_config": None,
             "report_to": "none", "packing": False, "neat_packing": False, "enable_liger_kernel": False,
             "flash_attn": "auto"}  # fmt: skip


def inspected(folder: Path) -> list[str]:
    """Write tokens.json; returns the faults."""
    from llamafactory.data.loader import _get_dataset_processor, _get_merged_dataset
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer
    from omegaconf import OmegaConf
    from transformers import AutoConfig

    from launchers.plugins import lora, own_template

    given: Any = OmegaConf.to_container(OmegaConf.load(folder / "llamafactory.yaml"))
    model_args, data_args, training_args, finetuning_args, _ = get_train_args({**given, **_NOT_HERE})
    stage = "rm" if finetuning_args.stage == "dpo" else "sft"
    plain, module = load_tokenizer(model_args)["tokenizer"], load_tokenizer(model_args)
    tokenizer = module["tokenizer"]
    try:
        template = get_template_and_fix_tokenizer(tokenizer, data_args)
    except ValueError as problem:  # without a template name it parses the tokenizer's template
        message = f"LlamaFactory cannot parse the chat template of {model_args.model_name_or_path!r} ({problem})"
        return [f"{message}: set native.template to one of LlamaFactory's templates"]
    if not plain.chat_template:
        plain.chat_template = tokenizer.chat_template  # saved with the trained model
    rows = _get_merged_dataset(data_args.dataset, model_args, data_args, training_args, stage)
    options = tokens.settings(folder)
    inspection = Inspection(
        options,
        str(data_args.template),
        own_template.vocabulary(tokenizer, model_args.model_name_or_path, model_args.model_revision),
        len(rows),
    )
    place, revision, trust = model_args.model_name_or_path, model_args.model_revision, model_args.trust_remote_code
    config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=trust)
    embeddings = getattr(config.get_text_config(), "vocab_size", None)
    targets = finetuning_args.lora_target if finetuning_args.finetuning_type == "lora" else []
    if fault := lora.unmatched(config, [target for target in targets if target != "all"]):
        inspection.add_fault(f"train.lora.targets: {fault}")
    processor = _get_dataset_processor(data_args, stage, template, tokenizer, module["processor"])
    for at in tokens.spread(len(rows)):
        row = rows[at]
        media = [row[f"_{kind}"] or [] for kind in ("images", "videos", "audios")]
        encoded = processor._encode_data_example(
            row["_prompt"], row["_response"], row["_system"], row["_tools"], *media
        )
        system = [{"role": "system", "content": row["_system"]}] if row["_system"] else []
        for number, part in enumerate(("chosen", "rejected") if stage == "rm" else ("",)):
            ids, labels = encoded[2 * number : 2 * number + 2]
            if embeddings and max(ids) >= embeddings and not model_args.resize_vocab:
                needed = ", ".join(repr(tokenizer.decode([token])) for token in sorted({*ids}) if token >= embeddings)
                inspection.add_fault(
                    f"template {data_args.template!r} needs {needed}, but {options['model']!r} has no embedding for it"
                )
            chat = [*system, *row["_prompt"], row["_response"][number]]
            own = own_template.rendered(plain, chat, inspection) if inspection.compares else None
            inspection.add(at, chat, Rendered(ids, [label != -100 for label in labels]), part, own)
    return inspection.write(folder)


def main(argv: Sequence[str]) -> int:
    """Inspect one training's folder."""
    for name in [name for name in os.environ if name in _LAUNCHERS or name.startswith(("TORCHELASTIC_", "PET_"))]:
        del os.environ[name]  # otherwise it would wait for torchrun's other processes
    return tokens.print_faults(inspected(Path(argv[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
