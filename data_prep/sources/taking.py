"""Which rows of a source are taken, and what they are called."""

import hashlib
from collections.abc import Iterator
from heapq import heappush, heappushpop

from data_prep.core.rows import content_id
from data_prep.core.step import Drop, Row


def limited(rows: Iterator[Row | Drop], limit: int | None, seed: int | None) -> Iterator[Row | Drop]:
    """The first `limit` rows, beyond which nothing is read; or with a seed a sample of all, in their order."""
    if limit is not None and seed is not None:
        yield from _sampled(rows, limit, seed)
        return
    taken = 0
    for row in rows:
        yield row
        taken += not isinstance(row, Drop)
        if taken == limit:
            return


def _sampled(rows: Iterator[Row | Drop], limit: int, seed: int) -> list[Row | Drop]:
    """The rows of the `limit` lowest ranks, and all drops; no more rows than that are ever held."""
    kept: dict[int, Row | Drop] = {}
    highest: list[tuple[int, int]] = []  # of the rows held, negative ranks and places: the highest comes first
    for place, row in enumerate(rows):
        kept[place] = row
        if isinstance(row, Drop):
            continue
        entry = (-_rank(seed, row), -place)
        if len(highest) < limit:
            heappush(highest, entry)
        else:
            del kept[-heappushpop(highest, entry)[1]]
    return list(kept.values())


def _rank(seed: int, row: Row) -> int:
    return int(hashlib.sha256(f"{seed}:{content_id(row)}".encode()).hexdigest(), 16)


def unique(row: Row, seen: dict[str, int]) -> Row:
    """The row with its id first, made from its content if absent; ids that come again get the next free of `-2`, `-3` …

    seen: how often each id came, those that were made here included.
    """
    name = given = row.get("id") or content_id(row)
    times = seen.get(given, 0) + 1
    while name in seen:
        name = f"{given}-{times}"
        times += name in seen
    seen[given] = times
    seen.setdefault(name, 1)
    row.pop("id", None)
    return {"id": name, **row}
