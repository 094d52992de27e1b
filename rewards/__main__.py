"""`python -m rewards`, see rewards/cli.py."""

import sys

try:
    import rapidfuzz  # noqa: F401  # one that other interpreters rarely have

    from rewards.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: not the core environment's interpreter; run $(make -s python) -m rewards")

if __name__ == "__main__":
    sys.exit(main())
