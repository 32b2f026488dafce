"""Split by patient, or by document where a note has no patient.

A pure function of (seed, patient): adding notes or reordering files moves no patient from one
side to the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from medjax.config import UserError
from medjax.data.dedup import text_key
from medjax.data.sources import Note

TRAIN, VALIDATION = "train", "validation"


def split_unit(note: Note) -> bytes:
    """What stays together in a split: the patient within its source, else the document."""
    if note.patient is None:
        return b"document\0" + text_key(note.text)
    unit = f"patient\0{note.source}\0{note.patient}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(unit, digest_size=16).digest()


def split_of(unit: bytes, seed: int, validation_fraction: float) -> str:
    """The split that all notes of a unit go to."""
    digest = hashlib.blake2b(unit, digest_size=8, key=str(seed).encode()).digest()
    is_held_out = int.from_bytes(digest, "big") < validation_fraction * 2**64
    return VALIDATION if is_held_out else TRAIN


def check_split(
    documents: Mapping[str, int], patients: Mapping[str, int], validation_fraction: float
) -> None:
    """Refuses a split of which one side is empty.

    Args:
      documents: number of notes by split.
      patients: number of different patients by split.
      validation_fraction: as configured.

    Raises:
      UserError: with the numbers and what to change.
    """
    total, known = sum(documents.values()), sum(patients.values())
    empty = [split for split, count in documents.items() if not count]
    if not total or not empty:
        return
    if known == 1:
        raise UserError(
            f"all {total:,} notes belong to one patient, so none is left for {empty[0]}; name "
            "the right `patient` column, add patients, or set validation_fraction to 0"
        )
    units = f"{known:,} patients" if known else f"{total:,} documents"
    raise UserError(
        f"{empty[0]} got none of {units} at validation_fraction {validation_fraction:g}; "
        "choose another fraction or seed, add notes, or set validation_fraction to 0"
    )
