"""`python -m launchers`: see launchers/cli.py."""

import gc
import locale
import os
import sys

if locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8"):  # our files are UTF-8, whatever LANG is
    line = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.execve(sys.executable, line, {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606  # restart this interpreter

gc.set_threshold(200_000)  # objects made by imports live to the end; collecting them took 7 % of a check's CPU time

try:
    from launchers.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: not the core environment's interpreter; run $(make -s python) -m launchers")

main()
