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

_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_IGNORED = ("PROTO", "FRAME", "BINPUT", "LONG_BINPUT", "MEMOIZE")


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
    texts: list[str] = []
    try:
        for opcode, argument, at in pickletools.genops(data):
            if opcode.name in _TEXTS and not texts:
                texts.append(str(argument))
            elif opcode.name == "STOP" and texts and at == len(data) - 1:
                return texts[0]
            elif opcode.name not in _IGNORED:
                name = opcode.name
                raise RewardError(f"packed tests: a pickle that holds more than one text (instruction {name})")
    except (ValueError, UnicodeDecodeError) as problem:
        raise RewardError(f"packed tests: no valid pickle: {str(problem)[:100]}") from None
    raise RewardError("packed tests: a pickle that is cut short, or followed by something")
