"""Pydantic's validation errors in terms of the document that the user wrote.

Rejected values, which pydantic's messages repeat, are left out: they may be misplaced secrets.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError

from data_prep.errors import nearest
from rewards import OUTCOMES

Place = tuple[str | int, ...]  # keys and indices of a place in a document

SHOULD = "Input should be "


def checked(check: Callable[[Any], Any]) -> AfterValidator:
    """Calls `check`, which raises ValueError, with a given value, or with each item of a tuple."""

    def validated(value: Any) -> Any:
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None:
                check(item)
        return value

    return AfterValidator(validated)


def _known_outcome(outcome: str) -> None:
    if outcome not in OUTCOMES:
        raise ValueError(f"no outcome {outcome!r}; outcomes are {', '.join(OUTCOMES)}")


ONE_OR_MORE = BeforeValidator(lambda value: (value,) if isinstance(value, str | int | float) else value)
Outcomes = Annotated[tuple[str, ...], ONE_OR_MORE, checked(_known_outcome)]


def explained(model: type[BaseModel], error: ValidationError, given: Any, noun: str) -> Iterator[tuple[Place, str]]:
    """Each place in the document `given` that `model` rejects, once, with the reason. noun: how messages call a key."""
    by_place: dict[Place, list[tuple[str, str]]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            level = schema_at(model, detail["loc"][:-1])
            message = f"no such {noun}{nearest(str(detail['loc'][-1]), level.model_fields if level else ())}"
        place = _place(given, detail["loc"], detail["type"] == "missing")
        by_place.setdefault(place, []).append((detail["type"], message))
    for place, reasons in by_place.items():
        below = any(other[: len(place)] == place and other != place for other in by_place)
        if not (below and all(_misfit(kind) for kind, _ in reasons)):  # another branch fits, and fails deeper
            yield place, _joined(reasons)


def find_faults(model: type[BaseModel], given: Any, noun: str) -> Iterator[tuple[Place, str]]:
    """`explained` for a document; nothing if `model` accepts it."""
    try:
        model.model_validate(given)
    except ValidationError as error:
        yield from explained(model, error, given, noun)


def _place(given: Any, loc: Place, missing: bool) -> Place:
    """`loc` without pydantic's labels for the branches of a union, which are not in the document."""
    place: list[str | int] = []
    for part in loc:
        listed = isinstance(given, list | tuple) and isinstance(part, int)
        if listed or (isinstance(given, Mapping) and part in given):
            place.append(part)
            given = given[part]
    return (*place, loc[-1]) if missing else tuple(place)


def _joined(reasons: Sequence[tuple[str, str]]) -> str:
    """One message for the branches of a union: those whose type fits the value, else all."""
    fitting = [message for kind, message in reasons if not _misfit(kind)]
    first, *rest = dict.fromkeys(fitting or [message for _, message in reasons])
    return " or ".join([first, *(message.removeprefix(SHOULD) for message in rest)])


def _misfit(kind: str) -> bool:
    """Whether an error only says that the value has another type."""
    return kind.endswith("_type")


def schema_at(model: type[BaseModel], place: Place) -> type[BaseModel] | None:
    """The model of the mapping at a place in a document of `model`; None if no model describes it."""
    for part in place:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # a key of a mapping of models, or pydantic's label for a branch
        inner = [kind for kind in _types(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return None
        model = inner[0]
    return model


def _types(annotation: Any) -> list[Any]:
    """The annotation and all those inside it."""
    return [annotation, *(kind for inner in getattr(annotation, "__args__", ()) for kind in _types(inner))]
