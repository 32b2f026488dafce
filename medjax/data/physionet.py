"""The papers' rules for MIMIC-III and MIMIC-IV-Note, on the official files.

Lehman et al. 2023, appendix A.1: of the drafts and edits of one note (same chart time, patient,
category and caregiver) the one stored last stays; rows marked as errors go; and in the union of
both collections, patients of MIMIC-III's MetaVision era give no radiology report or discharge
summary, as MIMIC-IV has those. `sources.py` calls this between reading a row and making a note.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from medjax.config import UserError
from medjax.data.config import SourceConfig
from medjax.data.files import read_ids
from medjax.data.readers import Row

OFFICIAL_NAMES = {"mimic3": ("NOTEEVENTS",), "mimic4": ("discharge", "radiology")}
IN_MIMIC4 = ("Radiology", "Discharge summary")  # categories that MIMIC-IV-Note has too
DRAFT = "draft or edit of a note stored later"
ERROR = "marked as an error (ISERROR)"
UNION = "also in MIMIC-IV (union rule)"
BAD_DATE = "date does not parse (read as missing)"


def official_files(source: SourceConfig) -> list[Path]:
    """The files of a MIMIC folder, or the file itself; of FILE.csv and FILE.csv.gz the first.

    Raises:
      UserError: none of them is there.
    """
    folder = Path(source.path)
    if not folder.is_dir():
        return [folder] if folder.is_file() else []
    names, found = OFFICIAL_NAMES[source.format], []
    for name in names:
        endings = [f"{name}.csv", f"{name}.csv.gz"]
        files = [folder / sub / e for sub in ("", "note") for e in endings]
        found += [file for file in files if file.is_file()][:1]
    if not found:
        wanted = " or ".join(f"{name}.csv(.gz)" for name in names)
        raise UserError(f"{folder}: holds no {wanted}; give the folder that PhysioNet hands out")
    return found


class Mimic3Rules:
    """Says of each row of NOTEEVENTS, in file order, why it is left out."""

    def __init__(self, source: SourceConfig, rows: Iterator[Row]):
        """Reads the whole file once for the columns that tell drafts from final notes."""
        self.carevue = None
        if source.carevue_patients:
            self.carevue = read_ids(Path(source.carevue_patients), column="subject_id")
        self.columns = source.columns
        self.notices: Counter[str] = Counter()
        self._superseded = self._find_superseded(rows)

    def problem(self, number: int, values: Mapping[str, Any]) -> str | None:
        """Why row `number` (from 0) is left out; None keeps it."""
        if _text(values[self.columns["iserror"]]) in ("1", "1.0"):
            return ERROR
        if self._superseded[number]:
            return DRAFT
        category = _text(values[self.columns["category"]])
        patient = _text(values[self.columns["patient"]])
        if self.carevue is not None and category in IN_MIMIC4 and patient not in self.carevue:
            return UNION
        return None

    def _find_superseded(self, rows: Iterator[Row]) -> Bool[np.ndarray, " R"]:
        """Marks every row but the last stored of a group; a group with a gap stays whole."""
        groups, stored, is_candidate = [], [], []
        for row in rows:
            key, time = self._key(row.values) if row.problem is None else (None, None)
            is_candidate.append(key is not None)
            groups.append(key or 0)
            stored.append(-1 if time is None else time)
        group, time = np.array(groups, np.uint64), np.array(stored, np.int64)
        candidate = np.flatnonzero(np.array(is_candidate, bool))
        order = candidate[np.lexsort((candidate, time[candidate], group[candidate]))]
        superseded = np.zeros(len(groups), bool)
        if not len(order):
            return superseded
        starts = np.flatnonzero(np.diff(group[order], prepend=~group[order[0]]))
        ends = np.append(starts[1:], len(order)) - 1
        has_gap = np.repeat(time[order[starts]] < 0, np.diff(np.append(starts, len(order))))
        is_last = np.zeros(len(order), bool)
        is_last[ends] = True
        superseded[order] = ~is_last & ~has_gap
        return superseded

    def _key(self, values: Mapping[str, Any]) -> tuple[int | None, int | None]:
        """A note's group (None: it belongs to none) and when it was stored (None: unknown)."""
        if _text(values[self.columns["iserror"]]) in ("1", "1.0"):
            return None, None
        chart, store = (self._seconds(values[self.columns[c]]) for c in ("charttime", "storetime"))
        parts = [_text(values[self.columns[c]]) for c in ("patient", "category", "caregiver")]
        if chart is None or not parts[2]:
            return None, None
        key = "\0".join([str(chart), *parts]).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big"), store

    def _seconds(self, value: Any) -> int | None:
        text = _text(value)
        if not text:
            return None
        try:
            return round((datetime.fromisoformat(text) - datetime(1900, 1, 1)).total_seconds())
        except (ValueError, TypeError):
            self.notices[BAD_DATE] += 1
            return None


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
