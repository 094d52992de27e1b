"""A row's text, and rows of equal texts once case, spacing and compatibility forms are united."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_prep.core.step import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUPERSCRIPTS = re.compile("[⁰¹²³⁴-⁹⁺⁻ⁿⁱ]+")
_OTHER_FORMS = "¼-¾₀-₉⅐-⅟①-⒛"  # of digits
_BESIDE_DIGITS = re.compile(rf"(?<=\d)(?=[{_OTHER_FORMS}])|(?<=[{_OTHER_FORMS}⁰¹²³⁴-⁹])(?=\d)")


def text_of(row: Row, fields: Sequence[str]) -> str:
    """The text of some fields; of a prompt, its messages but the system's."""
    parts: list[str] = []
    for field in fields:
        value: Any = row.get(field, "")
        if field == "prompt":
            value = "\n".join(message["content"] for message in value if message["role"] != "system")
        parts.append(value)
    return "\n".join(parts)


def normalised(row: Row, fields: Sequence[str]) -> str:
    """A row's text to compare."""
    return normalised_text(text_of(row, fields))


def normalised_text(text: str) -> str:
    """Compatibility forms united, case and spacing gone."""
    return " ".join(unicodedata.normalize("NFKC", numbers_apart(text)).casefold().split())


def numbers_apart(text: str) -> str:
    """The text with powers as ^, and a space beside other forms of digits: NFKC would make 99² 992, and 101₂ 1012."""
    return text if text.isascii() else _SUPERSCRIPTS.sub(r"^\g<0>", _BESIDE_DIGITS.sub(" ", text))


def text_hash(row: Row, fields: Sequence[str]) -> bytes:
    """Sixteen bytes that rows with equal normalised texts share."""
    return hashlib.sha256(normalised(row, fields).encode("utf-8", "surrogatepass")).digest()[:16]


def as_numbers(hashes: bytes | bytearray) -> NDArray[np.uint64]:
    """Hashes of texts, end to end, as two numbers each: [n, 2]."""
    import numpy as np

    return np.frombuffer(hashes, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def first_equal(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each of n hashes, [n, 2], the index of the first that equals it, its own where there is no earlier one."""
    import numpy as np

    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: of equal ones the first stands first
    ordered = hashes[order]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    first = np.empty(len(hashes), dtype=np.int64)
    first[order] = order[np.repeat(starts, np.diff(np.append(starts, len(hashes))))]
    return first
