"""`python -m launchers`: see launchers/cli.py."""

import gc
import locale
import os
import sys

if locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8"):  # files here are UTF-8, whatever LANG says
    line = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.execve(sys.executable, line, {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606  # this interpreter again

gc.set_threshold(200_000)  # what imports make lives to the end: looking for garbage in it took 7 % of a check's CPU

from launchers.cli import main  # noqa: E402

main()
