"""`python -m rewards`, see rewards/cli.py."""

import sys

try:
    from rewards.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: not the core environment's interpreter; run $(make -s python) -m rewards")

if __name__ == "__main__":
    sys.exit(main())
