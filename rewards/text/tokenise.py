"""Tokenisers of BLEU (13a) and ROUGE."""

import re
import unicodedata

_MARKS = tuple('!"#$%&()*+/:;<=>?@[\\]^_`{|}~')  # 13a separates these everywhere; exceptions are ' - . and comma
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))  # in mteval's order
# the literal precedes the look-behind, so that the scan is as fast as a search for one character
_POINT_BEFORE_DIGIT = re.compile(r"[.,](?<=[0-9.,][.,])(?=[0-9])")
_DASH_AFTER_DIGIT = re.compile(r"-(?<=[0-9]-)")
_CJK = r"\u3040-\u30ff\u3400-\u9fff"  # each kana or ideograph is a word
# Vowel signs, accents and joiners of scripts that separate words by spaces. Thai and some later blocks do not: theirs
# are excluded, and end a word.
_COMBINING = "\u200c\u200d" + "".join(c for c in map(chr, range(0x300, 0xE00)) if unicodedata.category(c)[0] == "M")
WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:[{_COMBINING}]+[^\W_{_CJK}]*)*")
TOKEN = re.compile(rf"{WORD.pattern}|[^\w\s]")  # a word or punctuation mark, in any script
_ROUGE_BYTES = bytes(byte if chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789" else 32 for byte in range(256))


def tokens_13a(text: str) -> list[str]:
    """Tokens of mteval-v13a, the same as in sacrebleu and evaluate, in a fraction of the time.

    Their three regular expressions for . , and - are replaced by an equivalent rule: a point or comma
    belongs to a number only between digits, with an exception for runs of them (see `_in_number`), and a dash
    is separated after a digit.
    """
    if "<skipped>" in text:
        text = text.replace("<skipped>", "")
    if "\n" in text:
        text = text.replace("-\n", "").replace("\n", " ")
    if "&" in text:
        for entity, mark in _ENTITIES:
            text = text.replace(entity, mark)
    for mark in _MARKS:
        if mark in text:
            text = text.replace(mark, f" {mark} ")
    if "." in text or "," in text:
        text = _separate_points(text)
    if "-" in text:
        text = _DASH_AFTER_DIGIT.sub(" - ", text)
    return text.split()


def _separate_points(text: str) -> str:
    """Puts spaces around the points and commas that are not part of a number."""
    pieces, start = [], 0
    for match in _POINT_BEFORE_DIGIT.finditer(text):
        at = match.start()
        if _in_number(text, at):
            pieces += [text[start:at].replace(".", " . ").replace(",", " , "), text[at]]
            start = at + 1
    pieces.append(text[start:].replace(".", " . ").replace(",", " , "))
    return "".join(pieces)


def _in_number(text: str, at: int) -> bool:
    """Whether the point or comma at `at`, followed by a digit, is joined with that digit.

    13a separates "non-digit, mark" from left to right without overlap. In a run of marks after a digit the
    second, fourth … are separated, else the first, third …; the run's last mark is the one that matters here.
    """
    before = at - 1
    while before >= 0 and text[before] in ".,":
        before -= 1
    return ((at - before) % 2 == 1) == (before >= 0 and "0" <= text[before] <= "9")


def rouge_tokens(text: str) -> list[str]:
    """Tokens of rouge-score without stemming: runs of a-z and 0-9 in the lower-cased text."""
    ascii_only = text.lower().encode("ascii", "replace")  # others become "?", which is not a letter either
    return ascii_only.translate(_ROUGE_BYTES).decode("ascii").split()


def tokens_of_any_script(text: str) -> list[str]:
    """Lower-cased words and punctuation marks; each kana or ideograph is a word."""
    return TOKEN.findall(unicodedata.normalize("NFC", text.lower()))
