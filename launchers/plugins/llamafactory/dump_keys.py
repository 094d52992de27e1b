"""Writes the keys of LlamaFactory's argument classes, so that the launcher can check `native` without importing it.

    <llamafactory python> -m launchers.plugins.llamafactory.dump_keys > configs/native/llamafactory.json

Key to {"type": bool|int|float|str|any, "choices": [...]}, for `template` also "models": LlamaFactory's table of Hub id
to template. A test compares the file with the installed version.
"""

import dataclasses
import enum
import json
import types
import typing

from llamafactory.data.template import TEMPLATES
from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS, DownloadSource
from llamafactory.hparams.parser import _TRAIN_ARGS


def describe(annotation: object) -> dict[str, object]:
    """An argument's type in terms of YAML types."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)] if union else [annotation]
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum)]
    if enums and all(kind in enums or kind is str for kind in kinds):
        return {"type": "str", "choices": [str(member.value) for member in enums[0]]}
    if len(kinds) == 1:
        if typing.get_origin(kinds[0]) is typing.Literal:
            return {"type": "any", "choices": list(typing.get_args(kinds[0]))}
        if kinds[0] in (bool, int, float, str):
            return {"type": kinds[0].__name__}  # type: ignore[union-attr]
    return {"type": "any"}


def keys() -> dict[str, dict[str, object]]:
    """All keys of a training config."""
    table: dict[str, dict[str, object]] = {}
    for arguments in _TRAIN_ARGS:
        hints = typing.get_type_hints(arguments)
        for field in dataclasses.fields(arguments):
            if field.init:
                table[field.name] = describe(hints[field.name])
    table["template"]["choices"] = sorted(TEMPLATES)  # LlamaFactory itself checks this only after loading the model
    named = {SUPPORTED_MODELS[name][DownloadSource.DEFAULT]: text for name, text in DEFAULT_TEMPLATE.items()}
    table["template"]["models"] = dict(sorted(named.items()))
    return dict(sorted(table.items()))


if __name__ == "__main__":
    print("{\n" + ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in keys().items()) + "\n}")
