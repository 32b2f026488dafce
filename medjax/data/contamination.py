"""Which evaluation examples stand in the notes, and which notes hold them.

An example is looked for by its words in lower case, without punctuation, digits and placeholders
(`word_hashes.bare_words`): from 13 words on, any 13-gram of it counts (Brown et al. 2020, appendix
C); below that the whole of it, as a run of words in a note; under 5 words it cannot be told from
chance and is reported as not checkable. What more than ten examples share (templates, boilerplate)
is evidence of none of them. Each field of an example is looked for on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt16, UInt64

from medjax.config import UserError
from medjax.data.config import EvaluationConfig
from medjax.data.evaluation_files import read_fields
from medjax.data.manifest import EvaluationInfo, FieldInfo
from medjax.data.word_hashes import Words, bare_words, ngrams

LONGEST, SHORTEST = 13, 5
FILTER_LOAD = 16  # places of the filter for each n-gram: one word in 16 is looked up in vain
MAX_FILTER_BITS = 25
MOST_SHARED = 10  # entries that an n-gram may be of
REASON = "holds an evaluation example"


class Table(NamedTuple):
    """The n-grams of one length: which text of the evaluation sets each belongs to."""

    hashes: UInt64[np.ndarray, " M"]
    """Ascending; one of two texts occurs twice."""
    entries: Int64[np.ndarray, " M"]


class Contamination(NamedTuple):
    """What to look for; handed to every worker process once."""

    configs: tuple[EvaluationConfig, ...]
    tables: dict[int, Table]
    """By length of the n-grams."""
    filter: UInt16[np.ndarray, " F"]
    """Bit n - SHORTEST: an n-gram whose hash has these lowest bits may be in table n. Most words
    are told by it alone."""
    evaluations: Int64[np.ndarray, " E"]
    """The evaluation set of each entry (a different text of a field)."""
    fields: Int64[np.ndarray, " E"]
    """The field of each entry, as a place in its set's `fields`."""
    checkable: np.ndarray
    """Whether an entry is long enough and not all boilerplate."""

    def check(self, texts: Sequence[str]) -> Int64[np.ndarray, "H 2"]:
        """Pairs (text, entry), each once, of the entries that stand in these texts."""
        if not self.tables:
            return np.zeros((0, 2), np.int64)
        words = bare_words(texts)
        found = [self._matches(words, n) for n in self.tables]
        return np.unique(np.concatenate(found), axis=0)

    def _matches(self, words: Words, n: int) -> Int64[np.ndarray, "H 2"]:
        table = self.tables[n]
        hashes, whole = ngrams(words, n)
        lowest = self.filter[hashes & np.uint64(len(self.filter) - 1)]
        found = np.flatnonzero((lowest >> np.uint16(n - SHORTEST) & np.uint16(1)) & whole)
        first = np.searchsorted(table.hashes, hashes[found], side="left")
        count = np.searchsorted(table.hashes, hashes[found], side="right") - first
        entry = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        texts = np.repeat(words.texts[found], count)
        return np.unique(np.stack([texts, table.entries[entry]], axis=1), axis=0)

    def to_remove(self, hits: Int64[np.ndarray, "H 2"]) -> Int64[np.ndarray, " H"]:
        """The texts of hits in sets whose notes are to be left out, ascending."""
        remove = np.array([config.remove for config in self.configs], bool)
        return np.unique(hits[remove[self.evaluations[hits[:, 1]]], 0]) if len(hits) else hits[:, 0]

    def report(self, hits: Int64[np.ndarray, "H 2"], by_id: Sequence[str]) -> list[EvaluationInfo]:
        """Counts over all notes; `by_id` names the sets whose patients were held out."""
        infos = []
        for i, config in enumerate(self.configs):
            of_set = hits[self.evaluations[hits[:, 1]] == i]
            how = ["by id"] * (config.name in by_id) + ["by text"] * config.remove
            infos.append(
                EvaluationInfo(
                    name=config.name,
                    path=config.path,
                    fields={
                        name: self._field(of_set, i, f) for f, name in enumerate(config.fields)
                    },
                    removed=" and ".join(how).replace("by id and by", "by id and") or "not removed",
                    notes_removed=len(np.unique(of_set[:, 0])) if config.remove else 0,
                )
            )
        return infos

    def _field(self, hits: np.ndarray, evaluation: int, field: int) -> FieldInfo:
        own = (self.evaluations == evaluation) & (self.fields == field)
        of_field = hits[own[hits[:, 1]]]
        return FieldInfo(
            examples=int(own.sum()),
            checkable=int((own & self.checkable).sum()),
            contaminated=len(np.unique(of_field[:, 1])),
            notes=len(np.unique(of_field[:, 0])),
        )


def load_contamination(configs: Sequence[EvaluationConfig]) -> Contamination:
    """Reads the evaluation files.

    Raises:
      UserError: a file or field is missing, or no text of a set is long enough to look for.
    """
    texts, evaluations, fields = [], [], []
    for i, config in enumerate(configs):
        for f, name in enumerate(config.fields):
            found = dict.fromkeys(read_fields(config, name))
            texts += found
            evaluations += [i] * len(found)
            fields += [f] * len(found)
    words = bare_words(texts)
    tables = _tables(words)
    checkable = np.zeros(len(texts), bool)
    for table in tables.values():
        checkable[table.entries] = True
    owners = np.array(evaluations, np.int64)
    for i, config in enumerate(configs):
        if not checkable[owners == i].any():
            raise UserError(
                f"{config.path}: no text in {', '.join(config.fields)} has {SHORTEST} words that "
                f"are not in more than {MOST_SHARED} of them, so nothing of it can be looked for; "
                "name other `fields`, or remove it"
            )
    return Contamination(
        tuple(configs), tables, _filter(tables), owners, np.array(fields, np.int64), checkable
    )


def _tables(words: Words) -> dict[int, Table]:
    """13-grams of long entries, and short ones whole under the number of their words.

    What many entries share (templates, boilerplate) is evidence of none of them, and left out.
    """
    sizes = np.minimum(words.counts, LONGEST)[words.texts]
    tables = {}
    for n in np.unique(sizes[sizes >= SHORTEST]).tolist():
        hashes, whole = ngrams(words, n)
        chosen = whole & (sizes[: len(hashes)] == n)
        pairs = np.unique(
            np.stack([hashes[chosen], words.texts[: len(hashes)][chosen].astype(np.uint64)]), axis=1
        )
        _, place, shared = np.unique(pairs[0], return_inverse=True, return_counts=True)
        pairs = pairs[:, shared[place] <= MOST_SHARED]
        tables[n] = Table(pairs[0], pairs[1].astype(np.int64))
    return tables


def _filter(tables: dict[int, Table]) -> UInt16[np.ndarray, " F"]:
    count = sum(len(table.hashes) for table in tables.values())
    bits = min(max(count * FILTER_LOAD, 1).bit_length(), MAX_FILTER_BITS)
    places = np.zeros(2**bits, np.uint16)
    for n, table in tables.items():
        places[table.hashes & np.uint64(2**bits - 1)] |= np.uint16(1 << n - SHORTEST)
    return places
