"""De-duplication of notes, before the split. Exact here: equal but for white space."""

from __future__ import annotations

import hashlib


def text_key(text: str) -> bytes:
    """16 bytes that are the same for texts which differ in white space alone."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


class ExactDuplicates:
    """Remembers the notes seen so far by their keys."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def is_new(self, text: str) -> bool:
        """Whether no equal note came before; remembers this one."""
        before = len(self._seen)
        self._seen.add(text_key(text))
        return len(self._seen) > before
