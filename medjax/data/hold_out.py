"""Patients that are left out of the corpus because an evaluation set has them.

Id files name patients, or notes whose patients are then looked up in the sources. Ids that occur
nowhere are reported; a file of which none occurs belongs to another source, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from medjax.config import UserError
from medjax.data.config import HoldOutConfig, SourceConfig
from medjax.data.files import read_ids
from medjax.data.manifest import HoldOutInfo

REASON = "patient held out"


class HoldOut:
    """Knows the held-out patients and counts what it meets; a pure function of the notes asked."""

    def __init__(
        self,
        configs: Sequence[HoldOutConfig],
        sources: Sequence[SourceConfig],
        identities: Callable[[SourceConfig], Iterator[tuple[str, str | None]]],
    ):
        """`identities(source)` gives (note id, patient) of every row: asked for lists of notes."""
        self.configs = list(configs)
        spaces = {source.namespace for source in sources}
        self._patients: list[set[str]] = []
        self._ids: list[int] = []
        self._found: list[set[str]] = [set() for _ in configs]
        self._notes = [0] * len(self.configs)
        self._note_ids_found: dict[int, int] = {}
        for config in self.configs:
            if config.source not in spaces:
                raise UserError(
                    f"{config.path}: `source` {config.source!r} is no source's name; there are "
                    f"{', '.join(sorted(spaces))}"
                )
            ids = read_ids(Path(config.path), config.column)
            self._ids.append(len(ids))
            if config.ids == "note":
                named = [source for source in sources if source.namespace == config.source]
                ids, found = _patients_of_notes(config, ids, named, identities)
                self._note_ids_found[len(self._patients)] = found
            self._patients.append(ids)

    def is_held_out(self, namespace: str, patient: str | None) -> bool:
        """Whether a note of this patient is left out; counts it."""
        held = False
        for i, config in enumerate(self.configs):
            if config.source == namespace and patient in self._patients[i]:
                self._notes[i] += 1
                self._found[i].add(patient)
                held = True
        return held

    def report(self) -> list[HoldOutInfo]:
        """The counts after all notes were asked for.

        Raises:
          UserError: no id of a file occurs in the sources.
        """
        infos = []
        for i, config in enumerate(self.configs):
            found = self._note_ids_found.get(i, len(self._found[i]))
            if not found:
                raise UserError(
                    f"{config.path}: none of its {self._ids[i]:,} {config.ids} ids occurs in the "
                    f"sources named {config.source!r}; check `source`, `column` and `ids`"
                )
            infos.append(
                HoldOutInfo(
                    path=config.path,
                    source=config.source,
                    evaluation=config.evaluation,
                    ids=self._ids[i],
                    found=found,
                    notes=self._notes[i],
                )
            )
        return infos


def _patients_of_notes(
    config: HoldOutConfig,
    ids: set[str],
    sources: Sequence[SourceConfig],
    identities: Callable[[SourceConfig], Iterator[tuple[str, str | None]]],
) -> tuple[set[str], int]:
    """The patients of the notes with these ids, and how many of the ids occur."""
    patients, found = set(), set()
    for source in sources:
        if not source.id or not source.patient:
            raise UserError(
                f"{config.path}: names notes, but source {source.namespace} has no `id` or no "
                "`patient` column to look their patients up; set both"
            )
        for note, patient in identities(source):
            if note in ids:
                found.add(note)
                patients.add(patient)
    return patients - {None}, len(found)
