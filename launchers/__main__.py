"""`python -m launchers`: see launchers/cli.py."""

import gc

gc.set_threshold(200_000)  # what imports make lives to the end: looking for garbage in it took 7 % of a check's CPU

from launchers.cli import main  # noqa: E402

main()
