"""Code skill-mix from the command line: solutions to a file of questions, and their scores by unit tests.

    python -m data_prep.families.skill_mix generate --model_path MODEL --questions_path questions.json --task_name core
    python -m data_prep.families.skill_mix score --generations_path training_data/Llama3.1-8B-Instruct/core_N=50.jsonl

Exit status: 0 done, 2 user error, 3 a limit was passed (too many unusable rows), 130 interrupted.
"""

from __future__ import annotations

import sys

from data_prep.core.commands import run
from data_prep.families.skill_mix import generation, scoring

if __name__ == "__main__":
    generate, score = (generation.Request, generation.generate), (scoring.Request, scoring.score)
    sys.exit(run(__doc__, {"generate": generate, "score": score}))
