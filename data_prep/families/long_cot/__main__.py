"""RLMT's preparation commands.

    python -m data_prep.families.long_cot prepare --input_json prompts.json --data_source wildchat
    python -m data_prep.families.long_cot zero --model meta-llama/Llama-3.1-8B --out models/zero_llama

Exit status: 0 done, 2 user error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from data_prep.core.commands import run
from data_prep.families.long_cot import prepare, zero


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says; returns the exit status."""
    prepared, copied = (prepare.Request, prepare.command), (zero.Request, zero.command)
    return run(__doc__ or "", {"prepare": prepared, "zero": copied}, argv)


if __name__ == "__main__":
    sys.exit(main())
