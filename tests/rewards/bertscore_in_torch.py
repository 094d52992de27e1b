"""BERTScore with a small encoder built here, against greedy matching written out token by token.

Run in the environment `vllm` by test_likeness.py: python bertscore_in_torch.py FOLDER
"""

from __future__ import annotations

import sys

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import rewards

TEXTS = ("the capital of france is paris", "paris is the capital", "plants turn light into energy")


def build(folder: str) -> None:
    words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *sorted({word for text in TEXTS for word in text.split()})]
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    marks = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    PreTrainedTokenizerFast(tokenizer_object=core, **marks).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)).save_pretrained(folder)


def by_hand(folder: str, text: str, reference: str) -> float:
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(folder), BertModel.from_pretrained(folder).eval()

    def states(words: str) -> list[torch.Tensor]:
        ids = tokenizer(words, return_tensors="pt")["input_ids"]
        return list(model(input_ids=ids, output_hidden_states=True).hidden_states[2][0].detach())

    def mean_best(these: list[torch.Tensor], those: list[torch.Tensor]) -> float:
        best = [max(float(torch.cosine_similarity(one, other, dim=0)) for other in those) for one in these[1:-1]]
        return sum(best) / len(best)

    mine, other = states(text), states(reference)
    precision, recall = mean_best(mine, other), mean_best(other, mine)
    return 2 * precision * recall / (precision + recall)


def main(folder: str) -> None:
    build(folder)
    reward = rewards.load("bertscore", model=folder, revision="", layer=2)
    row = {"references": [TEXTS[0], " "]}
    for text in TEXTS:
        assert abs(reward.score(row, text).value - by_hand(folder, text, TEXTS[0])) < 1e-5, text
    same, near, far = (reward.score(row, text).value for text in TEXTS)
    assert abs(same - 1) < 1e-5
    assert near > far
    assert reward.score({"references": [TEXTS[2], TEXTS[0]]}, TEXTS[0]).details == {"best": 1}
    assert reward.score(row, "paris " * 20).details["truncated"] == 6
    assert reward.score(row, " ").outcome == "no_answer"
    assert reward.score({"references": [""]}, "paris").outcome == "error"
    print("as by hand")
    rewards.load("bertscore", model=folder, revision="", layer=3).check_ready()  # it has two


if __name__ == "__main__":
    main(sys.argv[1])
