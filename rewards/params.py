"""Reward parameters: frozen pydantic models, with one-line errors that suggest the nearest known name."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rewards.errors import RewardError, nearest

Count = Annotated[int, Field(ge=1, le=1 << 24)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.01, le=86400.0)]


class RewardParams(BaseModel):
    """Base of all parameters. Types are strict, but JSON lists are accepted as tuples and ints as floats.

    removed: parameters of earlier versions, and what to do instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    removed: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, params: Any) -> Any:
        for name in params if isinstance(params, Mapping) else ():
            if name in cls.removed:
                raise ValueError(f"parameter {name!r} was removed: {cls.removed[name]}")
            if name not in cls.model_fields:
                near, known = nearest(str(name), cls.model_fields), ", ".join(cls.model_fields)
                raise ValueError(f"unknown parameter {name!r}{near}; parameters: {known}")
        return params

    @field_validator("*", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


P = TypeVar("P", bound=RewardParams)


def checked(cls: type[P], given: Mapping[str, Any], where: str) -> P:
    """Build `cls` from untyped parameters. Raises RewardError with `where`, the parameter and a hint at valid names."""
    try:
        return cls.model_validate(given)
    except TypeError as problem:  # raised by a user-defined `__init__`
        raise RewardError(f"{where}: {problem}; declare parameters as fields with defaults") from None
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        place = ": ".join([where, *filter(None, [".".join(map(str, first["loc"]))])])
        value = "" if isinstance(first["input"], Mapping) else f", not {first['input']!r:.80}"
        raise RewardError(f"{place}: {first['msg'].removeprefix('Value error, ')}{value}") from None
