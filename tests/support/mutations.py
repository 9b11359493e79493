"""Seeded mutations of files: bytes that are flipped, cut, moved or claim too much, and values of the wrong kind in JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


def mutated(data: bytes, random: Random) -> bytes:
    """Return a file with one to four faults in it."""
    broken = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if not broken:
            break
        place = random.randrange(len(broken)) if random.random() < 0.6 else random.randrange(min(len(broken), 64))  # headers matter more
        length = random.choice((1, 2, 4, 8, 16, 100, 1000))
        kind = random.randrange(8)
        if kind == 0:
            broken[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            broken[place] = random.randrange(256)
        elif kind == 2:
            width = random.choice((1, 2, 4, 8))
            value = random.choice(_EXTREMES) % (1 << 8 * width)
            broken[place : place + width] = value.to_bytes(width, random.choice(("little", "big")))
        elif kind == 3:
            del broken[place : place + length]
        elif kind == 4:
            broken[place:place] = broken[place : place + length] * random.choice((1, 1, 1, 50))
        elif kind == 5:
            broken[place:place] = random.randbytes(length)
        elif kind == 6:
            del broken[place if random.random() < 0.5 else len(broken) - min(length, len(broken) - 1) :]
        else:
            other = random.randrange(len(broken))
            broken[place : place + length], broken[other : other + length] = broken[other : other + length], broken[place : place + length]
    return bytes(broken)


HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**9, 10**18, 10**400, -(10**400), 0.5, -0.0, float("nan"), float("inf"), float("-inf"), "", " ", "a",
    "\0", "../x", "/etc/passwd", "\ud800", "\u2028", "\x1b[31m", "a" * 300, "图" * 100, "x" * 100_000, "1e400", [], {}, [[]], [None],
    {"": None},
    {"a": {"b": {}}}, [1, 2, 3, 4], ["a", "b"], [0] * 10_000,
)  # fmt: skip


def mutated_json(value: Any, random: Random) -> Any:
    """Return a value of JSON in which one to three parts are of another kind, gone, or there twice."""
    value = copy.deepcopy(value)
    for _ in range(random.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(random.choice(HOSTILE))
        holder, key = random.choice(places)
        kind = random.randrange(5)
        if kind == 0 and isinstance(holder, dict):
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == 2 and isinstance(holder, dict):
            holder[random.choice(("", "id", "image", "bbox", key + " "))] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(random.choice(HOSTILE))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, key
        yield from _places(inner)


def as_json(value: Any) -> bytes:
    """Return a value as JSON, one object a line where it is a list of objects: Python's own numbers and all."""
    return json.dumps(value).encode()


def as_lines(rows: Any) -> bytes:
    """Return rows as JSON lines."""
    return b"\n".join(json.dumps(row).encode() for row in rows) if isinstance(rows, list) else json.dumps(rows).encode()
