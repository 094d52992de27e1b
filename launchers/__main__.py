"""`python -m launchers`: see launchers/cli.py."""

from launchers.cli import main

main()
