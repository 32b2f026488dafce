"""Texts of different lengths packed into few rows of one length."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from jaxtyping import Int64


def pack(lengths: Int64[np.ndarray, " N"], capacity: int) -> list[list[int]]:
    """Which texts stand in which row: best fit, the longest first.

    Each text goes where it leaves the least room. O(N log N + N capacity / 64).

    Args:
      lengths: tokens of each text, from 1 to `capacity`.
      capacity: tokens of a row.
    """
    if not 1 <= lengths.min(initial=1) <= lengths.max(initial=1) <= capacity:
        raise ValueError(f"lengths are not from 1 to {capacity}")
    packs: list[list[int]] = []
    with_room: dict[int, list[int]] = defaultdict(list)  # tokens left -> rows
    rooms = 0  # bit n is set where a row has n tokens left
    for text in np.argsort(-lengths, kind="stable"):
        need = int(lengths[text])
        if fitting := rooms >> need:
            room = need + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, len(packs)
            packs.append([])
        packs[row].append(int(text))
        with_room[room - need].append(row)
        rooms |= 1 << (room - need)
    return packs
