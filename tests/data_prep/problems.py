"""Problems in the style of MATH, AMC and GSM8K, with texts that repeat them and texts that only resemble them."""

import json
from pathlib import Path

PROBLEMS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
BENCHMARK: dict[str, str] = PROBLEMS["benchmark"]
REPEATS: list[tuple[str, str]] = [(name, text) for name, text in PROBLEMS["repeats"]]  # reworded, reformatted, halved
OTHERS: list[str] = PROBLEMS["others"]  # mostly of the same templates, with other numbers or words
