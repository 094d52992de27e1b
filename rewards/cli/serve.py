"""Command `serve`: rewards over HTTP, for trainers that ask a server. rewards/serving/app.py describes the requests."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, get_type_hints

from rewards.base import Reward
from rewards.errors import RewardError
from rewards.params import checked
from rewards.scorer import read_rows
from rewards.serving.settings import ServerSettings


def add_parser(verbs: Any) -> None:
    """Add the verb `serve` to the command line's verbs."""
    parser = verbs.add_parser("serve", help="score over HTTP: POST /get_reward and /score")
    parser.add_argument("--reward", required=True)
    parser.add_argument("--param", action="append", default=[], metavar="K=V", help="V is JSON or a string")
    parser.add_argument("--input", type=Path, metavar="JSONL", help="rows that /get_reward finds by their prompt")
    parser.add_argument(
        "--value", type=_value, action="append", default=[], metavar="OUTCOME=NUMBER",
        help="what /get_reward answers for an outcome, e.g. truncated=-1",
    )  # fmt: skip
    types = get_type_hints(ServerSettings)
    for name, field in ServerSettings.model_fields.items():
        if name != "values":
            flag = "--" + name.replace("_", "-")
            text = f"{field.description or ''} (default {field.default})".strip()
            parser.add_argument(flag, type=types[name], default=field.default, help=text, metavar="X")


def serve(reward: Reward, args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns 0, or 1 if requests were still running when `grace` was over.

    Raises RewardError for wrong settings, rows or a port in use; OSError for an unreadable file.
    """
    from rewards.serving.app import App  # starlette and uvicorn: only this verb needs them
    from rewards.serving.server import listen, run

    given = {name: vars(args)[name] for name in ServerSettings.model_fields if name != "values"}
    settings = checked(ServerSettings, {**given, "values": dict(args.value)}, "serve")
    app = App(reward, _rows(args.input) if args.input else [], settings)
    reward.check_ready()
    finished = run(app, listen(settings.host, settings.port))
    if not finished:  # threads cannot be stopped, and the interpreter would wait for them
        sys.stdout.flush()
        os._exit(1)
    return 0


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, row, problem in read_rows(path):
        if problem:
            raise RewardError(f"{path}:{number}: {problem}")
        rows.append(row)
    return rows


def _value(text: str) -> tuple[str, float]:
    outcome, equals, number = text.partition("=")
    try:
        return outcome, float(number if equals else "")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write OUTCOME=NUMBER") from None
