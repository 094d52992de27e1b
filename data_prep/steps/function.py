"""Your own function, applied row by row: `map` changes or drops rows, `filter` keeps rows for which it returns True.

- map: {function: my_package.rows:shorten, params: {max_words: 300}}
- filter: {function: my_package.rows:is_english}

The function gets the row (a dict) and the parameters as keywords. For `map` it returns the row, or None to drop it.
The code of its module, and what that imports from its own package and folder, is part of the step's key.
"""

import os
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue

from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.core.validation import checked
from data_prep.errors import DataError
from rewards.imports import imported


def function(place: str) -> Callable[..., Any]:
    """The function at `package.module:name`; the working directory is searched as well. Raises ValueError."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        value = imported(place)
    except ValueError as error:
        raise ValueError(f"{place} cannot be imported: {error}") from None
    if not callable(value):
        raise ValueError(f"{place} is not a function")
    return value  # type: ignore[no-any-return]  # whatever it is, it can be called


FunctionName = Annotated[str, checked(function)]


class FunctionParams(Params):
    """function: `package.module:name`, importable where the pipeline runs; params: its keyword arguments."""

    function: FunctionName = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    params: dict[str, JsonValue] = Field(default_factory=dict)


class _OfFunction(Step[FunctionParams]):
    def modules(self) -> tuple[str, ...]:
        return (self.params.function.split(":")[0],)

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        call = function(self.params.function)
        for row in rows:
            try:
                result = call(deepcopy(dict(row)), **self.params.params)
            except Exception as error:  # the user's function may raise anything; reraised with the row
                error.add_note(f"{self.params.function} was called with row {row['id']!r}")
                raise
            yield self.output(row, result)

    def output(self, row: Row, result: Any) -> Row | Drop:
        """The row or drop for the function's result. Raises DataError for a result of another type."""
        raise NotImplementedError


class Map(_OfFunction):
    """Maps rows by a function; rows for which it returns None are dropped."""

    kind = "map"

    def output(self, row: Row, result: Any) -> Row | Drop:
        if result is not None and not isinstance(result, dict):
            raise DataError(f"{self.params.function} must return a row or None, got {type(result).__name__}")
        if result is None:
            return Drop(f"{self.params.function} returned None", row["id"])
        return {"id": row["id"], **result}


class Filter(_OfFunction):
    """Keeps the rows for which the function returns True."""

    kind = "filter"
    passes: ClassVar[bool] = True

    def output(self, row: Row, result: Any) -> Row | Drop:
        if not isinstance(result, bool):
            raise DataError(f"{self.params.function} must return True or False, got {type(result).__name__}")
        return row if result else Drop(f"{self.params.function} returned False", row["id"])
