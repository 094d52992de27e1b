"""`python -m data_prep`, see data_prep/cli.py."""

import sys

try:
    from data_prep.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: not the core environment's interpreter; run $(make -s python) -m data_prep")

if __name__ == "__main__":
    sys.exit(main())
