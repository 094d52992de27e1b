"""Reward `language_mix`: a penalty for writing in scripts that were not asked for.

    python -m rewards score --reward language_mix --param expected=han --input rows.jsonl --output scored.jsonl

Kinds:
  letters  share of letters outside the `expected` scripts (Greek is expected by default because of formulas)
  min_o1   share of characters outside min-O1's valid_char_pattern (cs2916, serve_rm.py): printable ASCII, white
           space and the mathematical operators U+2200 to U+22FF; `expected` is not used
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from rewards.base import Row, Score
from rewards.text.base import TextParams, TextReward

# Character ranges for the letters of a script, after Unicode's Blocks.txt. Mathematical letters (U+1D400 to
# U+1D7FF) count as Latin, those that look Greek as Greek, too.
Script = Literal["latin", "greek", "cyrillic", "han", "kana", "hangul", "arabic", "hebrew", "devanagari", "thai"]
SCRIPTS = {
    "latin": r"A-Za-z\xaa\xba\xc0-\u02af\u1d00-\u1d25\u1d2c-\u1dbf\u1e00-\u1eff\u2071\u207f\u2090-\u209c\u2100-\u214f"
    r"\u2c60-\u2c7f\ua722-\ua7ff\uab30-\uab6f\ufb00-\ufb06\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff",
    "greek": r"\xb5\u0370-\u03e1\u03f0-\u03ff\u1d26-\u1d2a\u1f00-\u1fff\u2126\U0001d6a8-\U0001d7cb",
    "cyrillic": r"\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f",
    "han": r"\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "kana": r"\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b16f",
    "hangul": r"\u1100-\u11ff\u3131-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc",
    "arabic": r"\u0600-\u06ff\u0750-\u077f\u0860-\u08ff\ufb50-\ufdff\ufe70-\ufeff",
    "hebrew": r"\u0590-\u05ff\ufb1d-\ufb4f",
    "devanagari": r"\u0900-\u097f\ua8e0-\ua8ff",
    "thai": r"\u0e00-\u0e7f",
}
_NOT_VALID = re.compile(r"[^\x21-\x7e\s\u2200-\u22ff]")
_SHOWN = 20  # characters kept in details


class LanguageParams(TextParams):
    """kind, expected: see above. tolerance: the largest share without a penalty. graded: the value is penalty ×
    share, else the whole penalty."""

    kind: Literal["letters", "min_o1"] = "letters"
    expected: tuple[Script, ...] = ("latin", "greek")
    tolerance: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    graded: bool = True
    penalty: float = -1.0


class LanguageMix(TextReward):
    """A penalty for scripts that were not asked for, 0 without them.

    Details: foreign_share, and foreign, the first foreign characters."""

    Params = LanguageParams
    params: LanguageParams

    def __init__(self, name: str, params: LanguageParams) -> None:
        super().__init__(name, params)
        ranges = "".join(SCRIPTS[script] for script in params.expected)
        self._foreign = _NOT_VALID if params.kind == "min_o1" else re.compile(rf"[^\W\d_{ranges}]")

    def measure(self, row: Row, text: str) -> Score:
        p = self.params
        foreign, counted = self._foreign.findall(text), len(text)
        if p.kind == "letters":
            foreign = list(filter(str.isalpha, foreign))  # \w has superscripts and such, too
            counted = sum(map(str.isalpha, text))
        share = len(foreign) / counted if foreign else 0.0
        value = 0.0 if share <= p.tolerance else p.penalty * (share if p.graded else 1.0)
        return Score(value, "scored", {"foreign_share": share, "foreign": "".join(foreign[:_SHOWN])})
