"""Completions of reasoning models in their templates' formats, complete and broken: the reward model's input."""

from __future__ import annotations

from typing import Any

import pytest

from rewards.base import Score
from rewards.model.reward import ModelReward

HARMONY = {
    "open": "<|channel|>analysis<|message|>",
    "close": "<|end|><|start|>assistant<|channel|>final<|message|>",
    "inner": "", "outer": "",
}  # fmt: skip
MAGISTRAL = {"open": "[THINK]", "close": "[/THINK]"}
SKY = "<|begin_of_thought|>\n\na\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nb"
SECOND = "<|end|><|start|>assistant<|channel|>final<|message|>b"
# format, completion, what is read (None: nothing, the floor), whether it is well-formed
SAMPLES: tuple[tuple[Any, str, str | None, bool], ...] = (
    ("think", "<think>\na\n</think>\n\nb<|im_end|>", "b", True),  # Qwen3
    ("think", "<think>\n\n</think>\n\nb", "b", False),  # Qwen3 told not to think
    ("think", "<think>\na", None, False),
    ("think", "<think>\na\n</think>\n\n", None, False),
    ("think", "<think>a<think>b</think>c</think>d", "d", False),
    ("think", "<think>a</think>b<think>c</think>d", "d", False),
    ("think", "<think>a</think>b<think>c", "b", False),
    ("think", "</think>b<think>a", "b", False),
    ("think", "b", "b", False),
    ("think", "a\n</think>\n\nb", "b", False),
    ("think", "<think>a</think>b<|im_end|>\n<|im_start|>user\nMore<|im_end|>", None, False),
    ("think", "<think>a<|im_end|>\n<|im_start|>assistant\n</think>b", "b", True),
    ("think", "<think>a</think>b</s>", "b", True),
    ("think", "<think>a</think>b<|endoftext|><|im_end|>\n", "b", True),
    ("think", "<think>a</thin", None, False),
    ("think", " \n<think>a</think>b", "b", True),
    ("think", "Sure! <think>a</think>b", "b", False),
    ("think", "<think>a</think>Use `<think>` tags.", "Use `", False),
    ("think", "<think>`</think>` closes it.</think>b", "b", False),
    ("think_prefilled", "a\n</think>\n\nb<｜end▁of▁sentence｜>", "b", True),  # DeepSeek-R1
    ("think_prefilled", "<think>\na\n</think>\n\nb", "b", False),
    ("think_prefilled", "a", None, False),
    ("think_prefilled", "</think>b", "b", False),
    ("think_prefilled", "a</think>b<｜User｜>More?<｜Assistant｜>c", None, False),
    ("zero", "<think>a</think>\n<response>b</response>", "b", True),
    ("zero", "<think>a</think>\n<response>b", "b", False),
    ("zero", "<response>b</response><think>a</think>", None, False),
    ("zero", "<think>a <response>x</response></think>\n<response>b</response>", "b", False),
    ("zero", "<think>a</think><response>b</response><query>c</query><response>d</response>", "b", False),
    ("answer_tags", "<think>a</think>b", "b", False),
    ("answer_tags", "<answer>b</answer>", "b", False),
    ("sky_t1", f"{SKY}\n\n<|end_of_solution|>", "b", True),
    ("sky_t1", f"{SKY}\n\n<|end_of_solution|><|im_end|>", "b", True),
    ("sky_t1", SKY, "b", False),
    (HARMONY, f"<|channel|>analysis<|message|>a{SECOND}<|return|>", "b", True),  # gpt-oss
    (HARMONY, f"<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>c{SECOND}",
     "b", True),
    (HARMONY, "<|channel|>analysis<|message|>a<|end|>", None, False),
    (HARMONY, f"<|channel|>analysis<|message|>a{SECOND[:-1]}", None, False),
    (HARMONY, "<|channel|>final<|message|>b<|return|>", None, False),
    (HARMONY, f"<|channel|>analysis<|message|>a{SECOND}<|end|><|start|>user<|message|>c", None, False),
    (MAGISTRAL, "[THINK]a[/THINK]b</s>", "b", True),
    (MAGISTRAL, "[THINK]a[/THINK]b[INST]c[/INST]", None, False),
    (MAGISTRAL, "[THINK]a[THINK]b[/THINK]c", "c", False),
    (MAGISTRAL, "[THINK]a", None, False),
)  # fmt: skip


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("form", "completion", "answer", "well_formed"), SAMPLES)
def test_what_the_reward_model_reads(
    form: Any, completion: str, answer: str | None, well_formed: bool, strict: bool
) -> None:
    reward = ModelReward.create("model", {"url": "http://x", "thinking": form, "strict": strict, "floor": -7.0})
    prompt = [{"role": "user", "content": "Are <think>a</think> and [THINK] marks?"}]
    read = reward._conversation({"prompt": prompt}, completion)
    if answer is None or (strict and not well_formed):
        assert isinstance(read, Score)
        assert read.value == -7.0
    else:
        assert read == [*prompt, {"role": "assistant", "content": answer}]
