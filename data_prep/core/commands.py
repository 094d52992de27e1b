"""Command lines whose options are the fields of a pydantic model: `--n_best 3`, several values for a tuple, flags."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from data_prep.core.fingerprint import REPO
from data_prep.core.progress import Live, Progress
from data_prep.core.validation import find_faults
from data_prep.errors import DataError
from rewards import RewardError

POSITIONAL: Any = {"positional": True}
Verb = Callable[[Any, Progress], str]  # runs with its options; the returned text is printed


def _steps_folder() -> Path:
    return Path(os.environ.get("POSTTRAIN_CACHE") or REPO / ".cache") / "steps"


Cache = Annotated[Path, AfterValidator(Path.absolute), Field(description="folder for finished steps")]
CACHE: Any = Field(default_factory=_steps_folder)
CPUS: Any = Field(default_factory=lambda: os.cpu_count() or 1, description="parallel processes")


class Options(BaseModel):
    """Options of one command. A field's description is its help text; json_schema_extra={"flag": "-n"} adds a short
    name, and json_schema_extra=POSITIONAL makes it a positional argument."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def run(doc: str, verbs: Mapping[str, tuple[type[Options], Verb]], argv: Sequence[str] | None = None) -> int:
    """Run the command line; a program with a single verb named "" takes no verb.

    Returns the exit status: 0 done, 2 user error, 3 a limit was exceeded, 130 interrupted.
    """
    parser = argparse.ArgumentParser(
        prog=_program(), description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if "" in verbs:
        _add(parser, verbs[""][0])
    else:
        below = parser.add_subparsers(dest="verb", required=True)
        for name, (model, _) in verbs.items():
            _add(below.add_parser(name, description=model.__doc__), model)
    given = vars(parser.parse_args(argv))
    model, work = verbs[given.pop("verb", "")]
    progress = Live() if sys.stderr.isatty() else Progress()
    try:
        if result := work(_checked(model, given), progress):
            print(result)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing is flushed at exit
    except (DataError, RewardError) as error:
        print(error, file=sys.stderr)
        return error.status if isinstance(error, DataError) else 2
    except KeyboardInterrupt:
        print("stopped; finished shards are kept, rerun the same command to resume", file=sys.stderr)
        return 130
    finally:
        progress.stop()
    return 0


def _program() -> str | None:
    """The command as typed, not argparse's `__main__.py`; None (argparse's default) for a script."""
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else None


def _add(parser: argparse.ArgumentParser, model: type[Options]) -> None:
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = "" if field.is_required() else f" (default: {field.get_default(call_default_factory=True)})"
        how: dict[str, Any] = {"default": argparse.SUPPRESS, "help": f"{field.description or ''}{default}".strip()}
        if extra.get("positional"):
            parser.add_argument(name, nargs=None if field.is_required() else "?", **how)
            continue
        if field.annotation is bool:
            how["action"] = "store_true"
        elif get_origin(field.annotation) is tuple:
            how["nargs"] = "*"
        elif choices := _choices(field.annotation):
            how["metavar"] = f"{{{','.join(map(str, choices))}}}"
        flags = dict.fromkeys([str(extra.get("flag", f"--{name}")), f"--{name}", f"--{name.replace('_', '-')}"])
        parser.add_argument(*flags, dest=name, required=field.is_required(), **how)


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values of a Literal, also of one that may be None."""
    kinds = (annotation, *get_args(annotation))
    return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


def _checked(model: type[Options], given: Mapping[str, Any]) -> Options:
    """The options. Raises DataError with a line for each invalid one."""
    if faults := list(find_faults(model, given, "option")):
        raise DataError("\n".join(f"--{'.'.join(map(str, place))}: {message}" for place, message in faults))
    return model.model_validate(given)
