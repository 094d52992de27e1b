"""LiveCodeBench's private tests: base64 of zlib of a pickled text, read without unpickling anything.

A pickle is a program. Of its instructions only those that build one text are known here; any other is an error
that names it. Sizes are bounded before memory is taken.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import zlib

from rewards.errors import RewardError

MOST_BYTES = 1 << 28  # unpacked; the largest of LiveCodeBench's are tens of megabytes

_STOP, _MEMOIZE = ord("."), 0x94
_ARGUMENT_BYTES = {0x80: 1, 0x95: 8, ord("q"): 1, ord("r"): 4}  # PROTO, FRAME, BINPUT, LONG_BINPUT: nothing to keep
_LENGTH_BYTES = {0x8C: 1, ord("X"): 4, 0x8D: 8}  # SHORT_BINUNICODE, BINUNICODE, BINUNICODE8


def unpack_text(packed: str, most_bytes: int = MOST_BYTES) -> str:
    """The text in `packed`; a JSON list is its own text. Raises RewardError."""
    if packed.lstrip()[:1] in ("[", "{"):
        return packed
    try:
        compressed = base64.b64decode(packed, validate=True)
        inflate = zlib.decompressobj()
        data = inflate.decompress(compressed, most_bytes)
    except (binascii.Error, zlib.error, ValueError) as problem:
        raise RewardError(f"packed tests: neither JSON nor base64 of zlib: {problem}") from None
    if inflate.unconsumed_tail or (not inflate.eof and len(data) >= most_bytes):
        raise RewardError(f"packed tests: more than {most_bytes} bytes when unpacked")
    if not inflate.eof or inflate.unused_data:
        raise RewardError("packed tests: the compressed data is cut short, or something follows it")
    return pickled_text(data)


def pickled_text(data: bytes) -> str:
    """The text in a pickle of one text. Raises RewardError for any other pickle, naming the instruction."""
    at, found = 0, None
    while at < len(data):
        code, at = data[at], at + 1
        if code == _STOP:
            if found is None or at != len(data):
                break
            return _decoded(found)
        if code in _ARGUMENT_BYTES:
            at += _ARGUMENT_BYTES[code]
        elif code in _LENGTH_BYTES and found is None:
            width = _LENGTH_BYTES[code]
            length = int.from_bytes(data[at : at + width], "little")
            found = data[at + width : at + width + length]
            at += width + length
        elif code != _MEMOIZE:
            raise RewardError(f"packed tests: a pickle that holds more than one text (instruction {_name(code)})")
    raise RewardError("packed tests: a pickle that is cut short, or followed by something")


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as problem:
        raise RewardError(f"packed tests: no valid text: {problem}") from None


def _name(code: int) -> str:
    return next((known.name for known in pickletools.opcodes if known.code == chr(code)), f"{code:#x}")
