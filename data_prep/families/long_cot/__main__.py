"""RLMT's preparation commands.

    python -m data_prep.families.long_cot prepare --input_json prompts.json --data_source wildchat
    python -m data_prep.families.long_cot zero --model meta-llama/Llama-3.1-8B --out models/zero_llama

Exit status: 0 done, 2 user error.
"""

import sys
from functools import partial

from data_prep.core.commands import run
from data_prep.families.long_cot import prepare, zero

main = partial(run, __doc__, {"prepare": (prepare.Request, prepare.command), "zero": (zero.Request, zero.command)})

if __name__ == "__main__":
    sys.exit(main())
