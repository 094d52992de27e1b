"""Additional steps for tests, and the command line with these registered.

python tests/data_prep/steps_for_tests.py run SPEC.json
"""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

from data_prep.cli import main
from data_prep.core.registry import STEPS
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError


class SlowParams(Params):
    seconds: float = 0.0  # per shard
    log: str = ""  # gets the number of each shard that is worked on
    workers: int | None = 1
    die_at: int = -1  # shard at which a DataError is raised
    gpus: int = 0


class Slow(Step):
    """Upper-cases completions, drops every seventh row, and is slow."""

    kind = "slow"
    shard_rows = 10
    needs: ClassVar[tuple[str, ...]] = ("completion",)
    unkeyed: ClassVar[tuple[str, ...]] = ("seconds", "log", "workers", "die_at", "gpus")
    Params = SlowParams
    params: SlowParams

    def processes(self) -> int | None:
        return self.params.workers

    def resources(self) -> tuple[float, float]:
        return 1, self.params.gpus

    def tally(self, row: Row) -> str | None:
        return "even" if row["meta"]["index"] % 2 == 0 else "odd"

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        shard = rows[0]["meta"]["index"] // self.shard_rows
        if shard == self.params.die_at:
            raise DataError(f"shard {shard} cannot be done")
        if self.params.log:
            with open(self.params.log, "a") as log:
                log.write(f"{shard}\n")
        time.sleep(self.params.seconds)
        for row in rows:
            if row["meta"]["index"] % 7 == 3:
                yield Drop("every seventh", row["id"])
            else:
                yield {**row, "completion": row["completion"].upper()}


class Suspicious(Slow):
    """Its verdict rejects the output if more than a tenth is odd."""

    kind = "suspicious"

    def verdict(self, counts: Mapping[str, int], rows: int) -> str | None:
        return f"{counts.get('odd', 0)} odd" if counts.get("odd", 0) > 0.1 * rows else None


class Silence(Step):
    """Turns a completion of "-" into an empty one, like a model that returns nothing."""

    kind = "silence"
    Params = Params

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        return [{**row, "completion": row["completion"].replace("-", "")} for row in rows]


STEPS.update(slow="steps_for_tests:Slow", suspicious="steps_for_tests:Suspicious", silence="steps_for_tests:Silence")

if __name__ == "__main__":
    sys.exit(main())
