"""Prices of models behind paid endpoints (configs/prices.yaml)."""

import datetime
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from data_prep.core.documents import read_models
from data_prep.errors import nearest

PRICES = Path(__file__).parents[3] / "configs" / "prices.yaml"
MILLION = 1_000_000
VERSION = re.compile(r"[-@:](\d{3,}[\d-]*|latest|free)$")  # gpt-4o-2024-08-06, gpt-4-0613, claude-3-opus-latest


class Price(BaseModel):
    """Dollars per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    date: datetime.date
    source: str

    def usd(self, prompt: int, completion: int) -> float:
        """The cost of a request in dollars."""
        return (prompt * self.input + completion * self.output) / MILLION


def find_price(model: str, path: Path = PRICES) -> Price | None:
    """A model's price, None if it is not listed. Raises DataError for an invalid file."""
    prices = read_models(path, Price)
    return prices.get(model) or prices.get(VERSION.sub("", model))


def need_price(model: str) -> Price:
    """A model's price. Raises ValueError if it has none."""
    price = find_price(model)
    if price is None:
        near = nearest(model, read_models(PRICES, Price))
        raise ValueError(f"spend_cap: {model!r} has no price in configs/{PRICES.name}: add a line for it{near}")
    return price
