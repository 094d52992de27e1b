"""Trainers by name."""

from __future__ import annotations

from launchers.backends.base import Backend


def load(name: str) -> Backend:
    """The backend of a trainer; imported only when asked for."""
    if name == "llamafactory":
        from launchers.backends.llamafactory import LlamaFactory

        return LlamaFactory()
    if name == "torchtune":
        from launchers.backends.torchtune import Torchtune

        return Torchtune()
    if name == "verl":
        from launchers.backends.verl import Verl

        return Verl()
    raise KeyError(name)
