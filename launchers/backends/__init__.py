"""Trainers by name: a module here that ends with `BACKEND = <its class>()`, and a folder of templates of that name."""

from __future__ import annotations

import importlib

from launchers.backends.base import Backend


def load(name: str) -> Backend:
    """The backend of a trainer; imported only when asked for."""
    backend: Backend = importlib.import_module(f"launchers.backends.{name}").BACKEND
    return backend
