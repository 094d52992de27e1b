"""Request formats of providers: the presets of configs/providers.yaml, and a step's overrides."""

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
PARAMETERS = ("n", "temperature", "top_p", "max_tokens", "seed", "stop", "top_k")  # of a request
# Omitting these values changes nothing.
NEUTRAL: Mapping[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "stop": ()}


class Form(BaseModel):
    """Changes to a request's body. An endpoint without `n` gets one request per sample."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rename: dict[str, str] = Field(default_factory=dict)  # our parameter name -> the endpoint's
    omit: tuple[str, ...] = ()  # parameters that are not sent
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)  # extra fields of the body
    headers: dict[str, str] = Field(default_factory=dict)  # "{key}" is replaced by the API key

    def body(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The request body for the parameters `values`."""
        kept = {self.rename.get(name, name): value for name, value in values.items() if name not in self.omit}
        return {**self.extra_body, **kept}

    def ignored(self, sampling: Sampling) -> list[str]:
        """Sampling parameters that the user set but that are not sent."""
        return [name for name in self.omit if name in NEUTRAL and getattr(sampling, name) != NEUTRAL[name]]

    def merged(self, other: Form) -> Form:
        """This form overridden by another one."""
        return Form(
            rename={**self.rename, **other.rename},
            omit=tuple(dict.fromkeys((*self.omit, *other.omit))),
            extra_body={**self.extra_body, **other.extra_body},
            headers={**self.headers, **other.headers},
        )


class Provider(Form):
    """A preset and where it applies by default. source: its documentation."""

    host: str = ""  # regular expression for base_url's whole host
    models: str = ""  # regular expression for the start of a model's name, without its owner
    source: str = ""


def find_form(name: str | None, base_url: str, model: str) -> Form:
    """The preset `name`, or the one for an address and model, else an empty form. Raises ValueError."""
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
