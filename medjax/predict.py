"""Apply a fine-tuned model to an unlabelled file.

    python -m medjax.predict --model runs/triage/export --input notes.csv --output triage.jsonl

The folder's `medjax.json` says how texts are cleaned, cut and decided on, so that the file is
treated as the run treated its test set. Rows are read as a stream; of each one a JSON line is
written with id, prediction (spans and answers as offsets) and probabilities. The output appears
when it is complete.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from medjax.config import Schema, UserError, main
from medjax.models.config import Compute
from medjax.tasks.config import ColumnsConfig, TaskConfig
from medjax.tasks.templates import AnswersConfig
from medjax.training.config import MeshConfig

log = logging.getLogger(__name__)

TOGETHER = 4096  # examples that are read, sorted by length and scored together


class PredictConfig(Schema):
    """A model and a file."""

    model: str
    """Folder exported by medjax.finetune."""
    input: str
    """File to be read, of the kind that the model was fine-tuned on; no labels are needed."""
    output: str
    """JSON lines to be written."""
    columns: ColumnsConfig | None = None
    """Of the input; by default those of the training files."""
    format: str | None = None
    """Of the input; by default that of the training files. tagging also reads a table of texts."""
    delimiter: str | None = None
    """Of CSV and TSV columns; by default a comma and a tab."""
    encoding: str = "utf-8"
    """Of text files."""
    review_below: float | None = Field(None, gt=0, lt=1)
    """Rows whose least certain decision has a lower probability get `"review": true`."""
    write_text: bool = False
    """Adds what a model wrote; the file is then readable by its owner alone."""
    batch_size: int = Field(64, ge=1)
    """Rows computed together."""
    compute: Compute | None = None
    """Precision, attention; by default as the model was fine-tuned."""
    mesh: MeshConfig = MeshConfig()
    """How devices are used."""


class Rules(NamedTuple):
    """What `medjax.json` says."""

    task: TaskConfig
    labels: tuple[str, ...]
    head: str | None
    selection: Any
    flagged: str | None
    """The class of the operating point."""
    compute: Compute
    answers: AnswersConfig
    decoding: Any


def run(config: PredictConfig) -> int:
    """Reads, predicts, writes; the exit code."""
    output = Path(config.output)
    if output.exists():
        raise UserError(f"{output}: exists; remove it or choose another output")
    rules = read_rules(Path(config.model), config)
    from medjax.tasks.examples import Report

    report = Report()
    examples = unlabelled(config, rules.task, report)
    first = next(examples, None)
    if first is None:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in report.excluded.items())
        raise UserError(f"{config.input}: no text in it ({reasons or 'no rows'})")
    predictor = build_predictor(config, rules)
    temporary = output.with_name(f".{output.name}.incomplete")
    temporary.unlink(missing_ok=True)
    with _opened(temporary, config.write_text) as file:
        count = write(file, predictor, _with(first, examples), config)
    temporary.rename(output)
    for reason, number in sorted(report.excluded.items()):
        print(f"left out: {number:,} rows: {reason}", file=sys.stderr)
    print(f"{output}: {count:,} predictions")
    return 0


def read_rules(folder: Path, config: PredictConfig) -> Rules:
    """The rules of an exported folder, for the input that the configuration describes."""
    from medjax.decoding.config import DecodingConfig
    from medjax.tasks.decode import Selection

    path = folder / "medjax.json"
    if not path.is_file():
        raise UserError(
            f"{folder}: no medjax.json in it; give a folder that medjax.finetune exported"
        )
    values = json.loads(path.read_text(encoding="utf-8"))
    task = TaskConfig(**values["task"])
    columns = (config.columns or task.columns).model_copy(update={"label": None, "meta": []})
    task = task.model_copy(
        update={
            "columns": columns,
            "format": config.format or task.format,
            "delimiter": config.delimiter or task.delimiter,
            "encoding": config.encoding,
        }
    )
    selection = Selection(**values["selection"])
    return Rules(
        task,
        tuple(values["labels"]),
        values["head"],
        selection._replace(thresholds=tuple(selection.thresholds)),
        (values["operating_point"] or {}).get("label"),
        config.compute or Compute(**values["compute"]),
        AnswersConfig(**values["answers"]),
        DecodingConfig(**values["decoding"]),
    )


def unlabelled(config: PredictConfig, task: TaskConfig, report: Any) -> Iterator[Any]:
    """The examples of the input."""
    from medjax.tasks.read import reader_of
    from medjax.tasks.tables import read_table
    from medjax.tasks.tagging import in_words

    if task.kind == "tagging" and task.format == "table":
        return map(in_words, read_table(config.input, task, report))
    return iter(reader_of(task)(config.input, task, report))


class Predictor(NamedTuple):
    """A model that is ready."""

    learner: Any
    params: Any
    rules: Rules
    mesh: Any
    edges: Any
    """Padded lengths."""


def build_predictor(config: PredictConfig, rules: Rules) -> Predictor:
    """Loads model and head."""
    import jax
    import numpy as np

    from medjax.hub.heads import load_head_params
    from medjax.training.initial import load_backbone
    from medjax.training.learner import build_learner
    from medjax.training.mesh import check_batch, make_mesh

    mesh = make_mesh(config.mesh, 0)
    check_batch(config.batch_size, 1, mesh)
    backbone = load_backbone(config.model, rules.compute, mesh, 0)
    learner = build_learner(
        backbone, rules.task, rules.labels, rules.head, rules.answers, rules.decoding, mesh
    )
    if config.write_text and learner.use != "text":
        raise UserError("write_text is for models that write; remove it")
    params = backbone.params
    if learner.labeller is not None:
        head = load_head_params(config.model, backbone.model.config, learner.use)
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        params = {"backbone": params, "head": jax.device_put(head, whole)}
    longest = -(-rules.task.max_length // 8) * 8
    edges = sorted({min(longest, 8 * 2**i) for i in range(16)} | {longest * 3 // 4 // 8 * 8 or 8})
    return Predictor(learner, params, rules, mesh, np.array(edges, np.int64))


def write(file: Any, predictor: Predictor, examples: Iterator[Any], config: PredictConfig) -> int:
    """Writes a line an example; how many."""
    import jax

    from medjax.tasks.predictions import certainty, prediction

    labels, count, begin, shown = predictor.rules.labels, 0, time.monotonic(), time.monotonic()
    unclear: Counter[str] = Counter()
    with jax.set_mesh(predictor.mesh):
        for some in _parts(examples):
            found = predict_some(predictor, some, config.batch_size)
            if config.review_below is not None and found.probabilities is None:
                raise UserError(
                    "review_below needs probabilities, which this model does not give; remove it"
                )
            unclear["not understood"] += found.not_understood or 0
            for place, example in enumerate(some):
                row = prediction(example, found, place, labels)
                if predictor.rules.flagged is not None:
                    probability = found.probabilities[place, labels.index(predictor.rules.flagged)]
                    row["flagged"] = bool(probability >= predictor.rules.selection.operating)
                if config.write_text:
                    row["text"] = found.texts[place]
                if config.review_below is not None:
                    row["review"] = certainty(found, place) < config.review_below
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += len(some)
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                rate = count / (shown - begin)
                print(f"{count:,} predictions, {rate:,.0f} a second", file=sys.stderr)
    if unclear["not understood"]:
        log.warning("%d outputs mean nothing for the task", unclear["not understood"])
    return count


def predict_some(predictor: Predictor, examples: Sequence[Any], batch_size: int) -> Any:
    """Predictions for a part of the input."""
    from medjax.data.length_batches import LengthBatches
    from medjax.tasks.decode import Scored, predict
    from medjax.training.labelled import Feed

    learner, rules = predictor.learner, predictor.rules
    rows = learner.encode(examples)
    plan = LengthBatches(rows.lengths, predictor.edges, batch_size, 0)
    feed = Feed(rows, None, plan, learner.pad_id)
    outputs = learner.respond(predictor.params, feed, examples)
    scored = Scored(examples, rows, outputs, learner.read)
    return predict(scored, rules.labels, rules.task, rules.selection)


def _parts(examples: Iterator[Any]) -> Iterator[list[Any]]:
    """Lists of TOGETHER examples."""
    while part := list(islice(examples, TOGETHER)):
        yield part


def _with(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _opened(path: Path, private: bool) -> Any:
    if not private:
        return path.open("w", encoding="utf-8")
    from medjax.tasks.predictions import private_file

    return private_file(path)


if __name__ == "__main__":
    main(PredictConfig, run, __doc__)
