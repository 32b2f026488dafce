"""The model card: README.md of an exported folder, with the front matter that the hub reads.

A pure function from facts to Markdown; the commands gather the facts (`medjax/pretrain.py` from its
configuration, the manifest and the metrics). A fact that is not there leaves its line out; the
clinical sections (intended use, limits, data access) are always there. Facts are names, numbers and
licences, never note text, and of a path only its last part.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import yaml

from medjax.config import UserError

OPEN_ACCESS = "open"
CREDENTIALED_ACCESS = "credentialed"

_PIPELINES = {"masked_lm": "fill-mask", "causal_lm": "text-generation"}
_OBJECTIVES = {
    "causal_lm": "causal language modelling",
    "masked_lm": "masked language modelling",
    "span_corruption": "span corruption (as T5)",
}


class Source(TypedDict, total=False):
    """One corpus that the weights were trained on."""

    name: str  # or `path`, of which the card shows the last part
    path: str
    licence: str | None
    access: str  # "open", "credentialed" or "internal", as in manifest.json
    documents: int
    tokens: int


class Facts(TypedDict, total=False):
    """What a card can tell."""

    name: str
    licence: str  # of the weights; a Hugging Face licence id such as "apache-2.0"
    languages: list[str]  # ISO codes
    tags: list[str]
    model: str  # "T5 v1.1, 60M parameters, vocabulary 8,192"
    objective: str  # "masked_lm", "span_corruption" or "causal_lm"
    init_from: str  # folder that it began from; empty: from scratch
    base_model: str  # the hub id of that model
    sources: list[Source]
    training: dict[
        str, object
    ]  # highlights of the configuration: optimizer, learning rate, batch ...
    tokens_seen: int
    flops: float
    hours: float
    hardware: str
    validation: dict[str, float]
    versions: dict[str, str]
    command: str


def model_card(facts: Facts) -> str:
    """The card as Markdown: front matter, training, validation, use, data access, command."""
    sections = [
        _front_matter(facts),
        f"# {facts.get('name', 'A clinical language model')}",
        _what_it_is(facts),
        _training(facts),
        _validation(facts),
        _USE,
        _data_access(facts.get("sources", [])),
        _reproduce(facts),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def read_sources(folder: str | Path) -> list[Source]:
    """What the card in a model folder says of its training notes; empty where it says nothing.

    A model that begins from another one has seen that one's notes too, and is bound by their terms.
    """
    path = Path(folder) / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    try:
        values = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else None
    except yaml.YAMLError:
        raise UserError(f"{path}: its front matter is not valid YAML; correct it") from None
    found = values.get("training_notes") if isinstance(values, dict) else None
    return [source for source in found or [] if isinstance(source, dict)]


def _front_matter(facts: Facts) -> str:
    restricted = [s for s in facts.get("sources", []) if s.get("access") != OPEN_ACCESS]
    licence = {"license": facts["licence"]} if facts.get("licence") else {}
    if restricted:
        # The terms of the notes bind the weights whatever licence the user would like to give them.
        licence = {"license": "other", "license_name": "data-use-agreement-of-the-training-notes"}
    values = {
        "language": facts.get("languages"),
        **licence,
        "library_name": "transformers",
        "pipeline_tag": _PIPELINES.get(facts.get("objective", "")),
        "tags": ["medjax", "jax", "clinical", "medical", *facts.get("tags", [])],
        "base_model": _base(facts),
        "datasets": [_source_name(s) for s in facts.get("sources", [])],
        "training_notes": [
            {"name": _source_name(s), "licence": s.get("licence"), "access": s.get("access")}
            for s in facts.get("sources", [])
        ],
    }
    text = yaml.safe_dump(
        {k: v for k, v in values.items() if v}, sort_keys=False, allow_unicode=True
    )
    return f"---\n{text}---"


def _base(facts: Facts) -> str:
    """The model it began from: its hub id where that is known, else the folder's name."""
    return facts.get("base_model") or Path(facts.get("init_from") or "").name


def _what_it_is(facts: Facts) -> str:
    model = facts.get("model", "A language model")
    start = f"continued from {_base(facts)}" if _base(facts) else "from random weights"
    objective = _OBJECTIVES.get(facts.get("objective", ""), facts.get("objective", ""))
    how = f" with {objective}" if objective else ""
    return (
        f"{model}. Trained {start}{how} on the notes listed below, with medjax (JAX); "
        "transformers loads it."
    )


def _training(facts: Facts) -> str:
    figures = [
        ("tokens seen", "tokens_seen", _count),
        ("training FLOPs", "flops", "{:.3g}".format),
        ("hours", "hours", "{:.3g}".format),
        ("hardware", "hardware", str),
    ]
    rows = [(label, show(facts[key])) for label, key, show in figures if key in facts]
    rows += [(name, str(value)) for name, value in facts.get("training", {}).items()]
    rows += [(name, version) for name, version in facts.get("versions", {}).items()]
    tables = [_table(("", "value"), rows)] if rows else []
    sources = [
        (
            _source_name(source),
            source.get("licence") or "not stated",
            source.get("access", "not stated"),
            _count(source.get("documents")),
            _count(source.get("tokens")),
        )
        for source in facts.get("sources", [])
    ]
    if sources:
        tables.append(_table(("data", "licence", "access", "notes", "tokens"), sources))
    return "\n\n".join(["## Training", *tables]) if tables else ""


def _validation(facts: Facts) -> str:
    if not facts.get("validation"):
        return ""
    rows = [
        (name.removeprefix("validation/").replace("_", " "), f"{value:.4g}")
        for name, value in facts["validation"].items()
    ]
    table = _table(("held-out patients", "value"), rows)
    note = "Masks are fixed; the losses are those of masked text, not likelihoods."
    return f"## Validation\n\n{table}\n\n{note}"


_USE = """\
## Intended use and limits

For research on clinical text: as the start of fine-tuned models for classification, extraction and
question answering whose results are checked on data of the place where they are to be used.

Not for care: it has not been validated for diagnosis, treatment, triage or any decision about a
patient, and it is no medical device. It carries the habits, errors and biases of the notes it saw
(their hospitals, years, patients and specialties), works worse on others, and can write text that
is false. A language model can give back parts of its training text; de-identification lowers that
risk and does not remove it."""


def _data_access(sources: list[Source]) -> str:
    lines = ["## Data access", "The training notes are not part of this folder."]
    credentialed = [s for s in sources if s.get("access") == CREDENTIALED_ACCESS]
    unstated = [s for s in sources if s.get("access") not in (OPEN_ACCESS, CREDENTIALED_ACCESS)]
    if credentialed:
        lines.append(
            f"**Some notes are under credentialed access: {_agreements(credentialed)}. This model "
            "may be passed on under that data use agreement alone, to people who have signed it; "
            "it may not be published.**"
        )
    if unstated:
        lines.append(
            f"**Some notes are not declared open: {_agreements(unstated)}. Do not pass this model "
            "on unless those who are responsible for them allow it.**"
        )
    if sources and not credentialed and not unstated:
        lines.append(f"All of them are openly available: {_agreements(sources)}.")
    return "\n\n".join(lines)


def _agreements(sources: list[Source]) -> str:
    return "; ".join(
        f"{_source_name(s)} ({s.get('licence') or 'no licence stated'})" for s in sources
    )


def _reproduce(facts: Facts) -> str:
    if not facts.get("command"):
        return ""
    return f"## Reproduce\n\n```bash\n{facts['command']}\n```"


def _source_name(source: Source) -> str:
    return source.get("name") or Path(source.get("path", "notes")).name


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table without its empty columns."""
    filled = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[line[i] for i in filled] for line in (header, ("---",) * len(header), *rows)]
    return "\n".join("| " + " | ".join(c.replace("|", "/") for c in line) + " |" for line in lines)
