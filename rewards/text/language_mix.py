"""Reward `language_mix`: a penalty for text in unexpected scripts.

    python -m rewards score --reward language_mix --param expected=han --input rows.jsonl --output scored.jsonl

Kinds:
  letters  share of letters outside the `expected` scripts (Greek is expected by default because of formulas)
  min_o1   share of characters outside min-O1's valid_char_pattern (cs2916, serve_rm.py): printable ASCII, white
           space and the mathematical operators U+2200 to U+22FF; ignores `expected`
"""

import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rewards.base import Row, Score
from rewards.text.base import TextReward

Script = Literal["latin", "greek", "cyrillic", "han", "kana", "hangul", "arabic", "hebrew", "devanagari", "thai"]
SCRIPTS: dict[Script, str] = tomllib.loads(Path(__file__).with_name("scripts.toml").read_text("utf-8"))  # type: ignore[assignment]
_NOT_VALID = re.compile(r"[^\x21-\x7e\s\u2200-\u22ff]")
_SHOWN = 20  # characters kept in details


class LanguageMix(TextReward):
    """A penalty for unexpected scripts, 0 without them.

    Details: foreign_share, foreign (the first foreign characters).

    kind, expected: see above. tolerance: largest share without a penalty. graded: True: the value is penalty ×
    share; False: the full penalty.
    """

    kind: Literal["letters", "min_o1"] = "letters"
    expected: tuple[Script, ...] = ("latin", "greek")
    tolerance: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    graded: bool = True
    penalty: float = -1.0

    @cached_property
    def _foreign(self) -> re.Pattern[str]:
        ranges = "".join(SCRIPTS[script] for script in self.expected)
        return _NOT_VALID if self.kind == "min_o1" else re.compile(rf"[^\W\d_{ranges}]")

    def grade_text(self, row: Row, text: str) -> Score:
        foreign, counted = self._foreign.findall(text), len(text)
        if self.kind == "letters":
            foreign = list(filter(str.isalpha, foreign))  # \w includes superscripts and the like
            counted = sum(map(str.isalpha, text))
        share = len(foreign) / counted if foreign else 0.0
        value = 0.0 if share <= self.tolerance else self.penalty * (share if self.graded else 1.0)
        return Score(value, "scored", {"foreign_share": share, "foreign": "".join(foreign[:_SHOWN])})
