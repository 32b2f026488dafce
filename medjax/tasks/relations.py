"""Relations between the entities of a document (PubTator), as a text with both of them marked.

Every pair of concepts of the two types is an example; its class is the relation or none. So is a
relation of concepts that are not mentioned: nothing marks it, and it mostly counts as missed.
Sentences with entities marked already are tables (`tables.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Example, Report
from medjax.tasks.tagging import Document, pubtator_documents

RELATED, UNRELATED = "related", "none"
MARKS = (("<<", ">>"), ("[[", "]]"))  # SciBERT's ChemProt files mark so
UNMENTIONED = "relation of a concept that is not mentioned (an example all the same)"
NO_CONCEPT = {"-1", ""}


def read_relations(path: str, config: TaskConfig, report: Report) -> Iterator[Example]:
    """An example for each pair of concepts; gold is "related" or "none"."""
    first, second = config.pair_types
    for document in pubtator_documents(Path(path), config):
        report.rows += 1
        concepts = [
            list(dict.fromkeys(m[3] for m in document.mentions if m[2] == kind))
            for kind in (first, second)
        ]
        pairs = [(a, b) for a in concepts[0] for b in concepts[1] if not {a, b} & NO_CONCEPT]
        unmentioned = sorted(document.relations - set(pairs))
        report.repaired[UNMENTIONED] += len(unmentioned)
        for a, b in [*pairs, *unmentioned]:
            report.examples += 1
            label = RELATED if (a, b) in document.relations else UNRELATED
            name, text = f"{document.id}:{a}:{b}", marked(document, a, b)
            yield Example(name, text, gold=label, group=document.id)
    report.repaired = +report.repaired


def marked(document: Document, first: str, second: str) -> str:
    """The text with all mentions of the two concepts between marks."""
    text = document.text
    places = [
        (m[0], m[1], (first, second).index(m[3]))
        for m in document.mentions
        if m[3] in (first, second)
    ]
    for start, end, which in sorted(set(places), reverse=True):
        opening, closing = MARKS[which]
        text = f"{text[:start]}{opening} {text[start:end]} {closing}{text[end:]}"
    return text
