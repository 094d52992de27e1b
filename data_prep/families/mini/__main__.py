"""Calls a function of this package in the current environment and prints its result as JSON, for `build.ask`.

python -m data_prep.families.mini model:build '{"out": "runs/untrained", "seed": 0, "subject": "arithmetic"}'
python -m data_prep.families.mini evaluate:evaluate '{"model": "recipes/mini/model", "levels": {"2": 250}}'
"""

import json
import sys
from importlib import import_module

if __name__ == "__main__":
    module, _, function = sys.argv[1].partition(":")
    print(json.dumps(getattr(import_module(f"data_prep.families.mini.{module}"), function)(**json.loads(sys.argv[2]))))
