"""A value head as a sequence classifier: the logit is the value minus the bias, alone and in a padded batch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPO

CODE = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from data_prep.families.mini import value_head

model, folder = Path(sys.argv[1]), Path(sys.argv[2])
value_head.untie(model, folder / "trained")
torch.manual_seed(3)
language = AutoModelForCausalLM.from_pretrained(folder / "trained").eval()
weight, bias = torch.randn(1, language.config.hidden_size), 0.25
head = {"v_head.summary.weight": weight, "v_head.summary.bias": torch.tensor([bias])}
save_file(head, folder / "trained" / "value_head.safetensors")
told = value_head.convert(folder / "trained", folder / "out")
tokenizer = AutoTokenizer.from_pretrained(folder / "out")
classifier = AutoModelForSequenceClassification.from_pretrained(folder / "out").eval()
chats = [
    [{"role": "user", "content": "17+25=?"}, {"role": "assistant", "content": text}]
    for text in ("42", "7+5=12, 1+2+1=4: the sum is 42, and that is certain.", "43")
]
texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
values, alone = [], []
with torch.no_grad():
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        state = language(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
        values.append(float(weight[0] @ state) + bias)
        alone.append(float(classifier(input_ids=ids).logits[0, 0]))
    batch = tokenizer(texts, add_special_tokens=False, return_tensors="pt", padding=True, padding_side="right")
    batched = classifier(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].tolist()
print(json.dumps({**told, "values": values, "alone": alone, "batched": batched}))
"""


def test_logits_are_values_minus_the_bias_also_with_padding(
    tmp_path: Path, llamafactory_python: Path, mini_model: Path
) -> None:
    """LlamaFactory #9540: a head that no server could take. transformers #35352: in a batch the last token was taken
    where padding begins, inside the prompt."""
    words = [str(llamafactory_python), "-c", CODE, str(mini_model), str(tmp_path)]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    made = json.loads(done.stdout.splitlines()[-1])
    assert made["bias"] == 0.25
    assert made["difference"] < 1e-4
    assert made["alone"] == pytest.approx([value - 0.25 for value in made["values"]], abs=1e-4)
    assert made["batched"] == pytest.approx(made["alone"], abs=1e-4)
    assert len({round(value, 3) for value in made["alone"]}) == 3  # it reads the answers
