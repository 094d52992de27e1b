"""Writes what LlamaFactory's argument classes accept, so that the launcher can check `native` without importing it.

    <llamafactory python> -m launchers.plugins.llamafactory.dump_keys > configs/native/llamafactory.json

Key to {"type": bool|int|float|str|any, "choices": [...]}, for `template` also "models": its own table, Hub id to
template; a test compares the file with the installed version.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import typing

from llamafactory.data.template import TEMPLATES
from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS, DownloadSource
from llamafactory.hparams.parser import _TRAIN_ARGS

from launchers.plugins.annotations import alternatives, scalar


def describe(annotation: object) -> dict[str, object]:
    """One argument's type, as far as YAML can tell types apart."""
    kinds = alternatives(annotation)
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum)]
    if enums and all(kind in enums or kind is str for kind in kinds):
        return {"type": "str", "choices": [str(member.value) for member in enums[0]]}
    if len(kinds) == 1 and typing.get_origin(kinds[0]) is typing.Literal:
        return {"type": "any", "choices": list(typing.get_args(kinds[0]))}
    return {"type": scalar(annotation)}


def keys() -> dict[str, dict[str, object]]:
    """Every key that a training config may hold."""
    table: dict[str, dict[str, object]] = {}
    for arguments in _TRAIN_ARGS:
        hints = typing.get_type_hints(arguments)
        for field in dataclasses.fields(arguments):
            if field.init:
                table[field.name] = describe(hints[field.name])
    table["template"]["choices"] = sorted(TEMPLATES)  # LlamaFactory itself looks only after loading the model
    named = {SUPPORTED_MODELS[name][DownloadSource.DEFAULT]: text for name, text in DEFAULT_TEMPLATE.items()}
    table["template"]["models"] = dict(sorted(named.items()))
    return dict(sorted(table.items()))


if __name__ == "__main__":
    print("{\n" + ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in keys().items()) + "\n}")
