"""Runs in verl's environment: verdicts of its prime_code. Reads JSON rows of in_outs and code, writes verdicts."""

from __future__ import annotations

import json
import os
import sys

from verl.utils.reward_score.prime_code.utils import check_correctness

if __name__ == "__main__":
    rows = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a program may write to descriptor 1
    verdicts = []
    for row in rows:
        results, _ = check_correctness(row["in_outs"], row["code"], timeout=5, debug=False)
        verdicts.append(len(results) == len(row["in_outs"]["inputs"]) and all(one is True for one in results))
    json.dump(verdicts, answer)
