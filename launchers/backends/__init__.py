"""One module per trainer, ending with `BACKEND = <class>()`, with a folder of templates of the same name."""

import importlib

from launchers.backends.base import Backend


def load(name: str) -> Backend:
    """Import and return the backend of a trainer."""
    backend: Backend = importlib.import_module(f"launchers.backends.{name}").BACKEND
    return backend
