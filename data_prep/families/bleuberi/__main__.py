"""BLEUBERI's training data, with the options of the original's create_training_data.py.

    python -m data_prep.families.bleuberi grpo --model Qwen/Qwen2.5-7B --metric bleu --num_examples 5000
    python -m data_prep.families.bleuberi sft --input_data_path data/data_grpo/<name>

Exit status: 0 done, 2 user error, 3 a limit was exceeded (too many unusable rows), 130 interrupted.
"""

import sys
from functools import partial

from data_prep.core.commands import run
from data_prep.families.bleuberi import build

main = partial(run, __doc__, {"grpo": (build.Request, build.grpo), "sft": (build.SftRequest, build.sft)})

if __name__ == "__main__":
    sys.exit(main())
