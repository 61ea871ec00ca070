"""A fixed, stratified choice of held-out examples, the same on every machine and in every version."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence


def held_out(keys: Sequence[str], classes: Sequence[Hashable], fraction: float) -> list[bool]:
    """Chooses the same share of every class.

    Within a class the examples are ranked by the hash of their key, and the first ones are held out. No
    random generator is involved, so the choice depends on nothing but the keys.

    Args:
      keys: a name for each example that stays the same from run to run.
      classes: the class of each example.
      fraction: the share to hold out, in (0, 1). Of a class with two examples or more at least one is held
        out and at least one is kept; a single example is kept.

    Returns:
      For each example whether it is held out.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, label in enumerate(classes):
        members[label].append(index)
    chosen = [False] * len(keys)
    for indices in members.values():
        count = min(max(round(fraction * len(indices)), 1), len(indices) - 1)
        ranked = sorted(indices, key=lambda i: (_digest(keys[i]), keys[i]))
        for index in ranked[:count]:
            chosen[index] = True
    return chosen


def _digest(key: str) -> bytes:
    # A file's name may hold bytes that are no UTF-8.
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
