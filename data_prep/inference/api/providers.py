"""How providers want a request written: the presets of configs/providers.yaml, and a step's own changes to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from data_prep.core.documents import read_models
from data_prep.errors import nearest
from data_prep.inference.sampling import Sampling

PROVIDERS = Path(__file__).parents[3] / "configs" / "providers.yaml"
PARAMETERS = ("n", "temperature", "top_p", "max_tokens", "seed", "stop", "top_k")  # that a request may hold
# Leaving these out changes nothing.
NEUTRAL: Mapping[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "stop": ()}


class Form(BaseModel):
    """Changes to a request's body. An endpoint that takes no `n` is asked once a sample."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rename: dict[str, str] = Field(default_factory=dict)  # a parameter's name here to its name there
    omit: tuple[str, ...] = ()  # parameters that are not sent
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)  # further fields of the body
    headers: dict[str, str] = Field(default_factory=dict)  # "{key}" stands for the API key

    def body(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The body for the parameters `values`."""
        kept = {self.rename.get(name, name): value for name, value in values.items() if name not in self.omit}
        return {**self.extra_body, **kept}

    def ignored(self, sampling: Sampling) -> list[str]:
        """Sampling parameters that have a value of the user's and are not sent."""
        return [name for name in self.omit if name in NEUTRAL and getattr(sampling, name) != NEUTRAL[name]]

    def merged(self, other: Form) -> Form:
        """This form with the changes of another one on top."""
        return Form(
            rename={**self.rename, **other.rename},
            omit=tuple(dict.fromkeys((*self.omit, *other.omit))),
            extra_body={**self.extra_body, **other.extra_body},
            headers={**self.headers, **other.headers},
        )


class Provider(Form):
    """A preset, and where it applies unless a step names another one. source: where this is documented."""

    host: str = ""  # regular expression for the whole of base_url's host
    models: str = ""  # regular expression for the beginning of a model's name, without its owner
    source: str = ""


def find_form(name: str | None, base_url: str, model: str) -> Form:
    """The preset `name`, or the one for an address and a model; an empty one where none is. Raises ValueError."""
    providers = read_models(PROVIDERS, Provider)
    if name is not None:
        if name not in providers:
            raise ValueError(f"provider: no {name!r} in configs/{PROVIDERS.name}{nearest(name, providers)}")
        return Form().merged(providers[name])
    host = urlsplit(base_url).hostname or ""
    for provider in providers.values():
        at_host = provider.host and re.fullmatch(provider.host, host)
        if at_host and re.match(provider.models, model.casefold().rpartition("/")[2]):
            return Form().merged(provider)
    return Form()
