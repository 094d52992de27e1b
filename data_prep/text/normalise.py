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


def first_equal(hashes: bytes | bytearray) -> NDArray[np.int64]:
    """For each of the hashes of texts, end to end, the index of the first that equals it."""
    import numpy as np

    _, first, group = np.unique(np.frombuffer(hashes, dtype="S16"), return_index=True, return_inverse=True)
    return first[group]
