"""Prompt a language model on a labelled task and score its answers.

    python -m medjax.prompt CONFIG.yaml [--dotted.field value ...]

A decoder (Llama, Mistral, Qwen3, Gemma 3, GPT-2) or a T5 answers in words, freely or held to the
answers that are possible, or closed answers are compared by their likelihood; an encoder compares
them in the place of its masks. Of several prompts the best on a few validation examples is chosen
and written to `selection.json` before test is looked at; `results.json` and `predictions.jsonl` are
those of medjax.finetune. The same command goes on where it stopped. Answers of other systems, in a
JSON lines file (`completions`), are read by the same rules.

    run_dir: runs/rqe_prompted
    model: models/llama-3.2-1b-instruct
    task: {kind: classification, train: train.jsonl, test: test.jsonl}
    prompts:
    - name: plain
      instruction: "Answer with one of: {{ labels | join(', ') }}."
      input: "{{ text }}"
    shots: {count: 4}
    mode: constrained
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from medjax.config import Schema, UserError, main
from medjax.decoding.config import DecodingConfig
from medjax.models.config import Compute
from medjax.tasks.config import TaskConfig
from medjax.tasks.templates import DEFAULTS, ShotsConfig, Template
from medjax.training.config import MeshConfig
from medjax.training.run_dir import check_resumable, claimed

if TYPE_CHECKING:
    from medjax.tasks.answers import Asked

log = logging.getLogger(__name__)

CHANGEABLE = ("draws", "write_text", "decoding.batch_size")
LIKELIHOOD_KINDS = ("classification", "relations")


class PromptConfig(Schema):
    """A model, a task, prompts."""

    run_dir: str
    """Folder of the run; resumed if it holds one. With export nothing is written to it."""
    model: str | None = None
    """Hugging Face folder or run directory; none with completions."""
    completions: str | None = None
    """JSON lines with `id` and `output`: answers to test that something else wrote."""
    export: str | None = None
    """JSON lines to be written: the prompts of test, for something else to answer."""
    allow_export: bool = False
    """export: also of data that task.open does not declare open."""
    task: TaskConfig
    """Labelled data; max_length and long say what is kept of a text."""
    prompts: list[Template] = []
    """Ways to ask; of several, validation chooses; by default a plain one for the task's kind."""
    chat: bool = True
    """Uses the tokenizer's chat template where there is one."""
    shots: ShotsConfig = ShotsConfig()
    """Examples that are shown."""
    seeds: list[int] = Field([1], min_length=1)
    """Of shots and of drawn tokens; one run over test each."""
    mode: Literal["free", "constrained", "likelihood"] = "free"
    """Any text; possible answers alone; closed answers by likelihood (of encoders in masks)."""
    normalise: bool = False
    """likelihood: per token of the answer."""
    pattern: str | None = None
    """constrained: the regular expression of answers, in the place of the task's own."""
    json_schema: dict[str, Any] | None = None
    """constrained: the schema of answers that are JSON."""
    decoding: DecodingConfig = DecodingConfig()
    """Length, search, batch."""
    compute: Compute = Compute()
    """Precision, attention."""
    int8: bool = False
    """Holds the layers' matrices as 8-bit integers with a scale for each output."""
    selection_examples: int = Field(200, ge=1)
    """Validation examples by which one of several prompts is chosen (Lehman et al. 2023: 200)."""
    metric: str | None = None
    """Chooses the prompt; by default the task's usual one."""
    write_text: bool = False
    """Writes what was answered to generated.jsonl, which only its owner may read."""
    draws: int = Field(1000, ge=100)
    """Of the bootstrap behind the intervals."""
    mesh: MeshConfig = MeshConfig()
    """How devices are used."""


def run(config: PromptConfig) -> int:
    """Chooses a prompt, asks about test, writes everything; the exit code."""
    config = config.model_copy(update={"prompts": config.prompts or [DEFAULTS[config.task.kind]]})
    run_dir = Path(config.run_dir)
    _check(config)
    check_resumable(run_dir, config, CHANGEABLE)
    from medjax.tasks.read import read_task

    data = read_task(config.task)
    if config.export:
        return _export(config, data)
    system = load_system(config, data) if config.model else None
    with claimed(run_dir, config):
        if system is None:
            return _score_completions(config, data)
        chosen = choose_prompt(config, data, system)
        asked = []
        seeds = (
            config.seeds if config.shots.count or config.decoding.temperature else config.seeds[:1]
        )
        for seed in seeds:
            asked.append(_ask(config, data, system, chosen, "test", data.splits["test"], seed))
        _report(config, data, system, chosen, asked, list(seeds))
        if config.mode != "likelihood" and not config.write_text:
            for path in (run_dir / "answers").iterdir():  # may quote notes; was for going on
                path.unlink()
    return 0


def _check(config: PromptConfig) -> None:
    if sum(own is not None for own in (config.model, config.completions, config.export)) != 1:
        raise UserError("give either a model, or completions, or export")
    if config.export and len(config.prompts) > 1:
        raise UserError("export writes one prompt for each example; leave one in prompts")
    if config.task.long == "windows":
        raise UserError("task.long windows is for encoders; use head, tail or head_tail")
    names = [prompt.name for prompt in config.prompts]
    if len(set(names)) < len(names):
        raise UserError("prompts: a name stands there twice; names must differ")
    if config.mode == "likelihood" and config.task.kind not in LIKELIHOOD_KINDS:
        raise UserError(f"mode likelihood is for closed answers, not for {config.task.kind}")
    own = config.pattern or config.json_schema
    if own and config.mode != "constrained":
        raise UserError("pattern and json_schema are for mode constrained; set it")
    if config.mode == "constrained" and config.task.kind == "text_to_text" and not own:
        raise UserError("mode constrained needs a pattern or a json_schema for text_to_text")
    if config.mode == "constrained" and config.decoding.stop:
        raise UserError("decoding.stop is for free answers; remove it")


class System(NamedTuple):
    """A model that is ready to be asked."""

    name: str
    ask: Callable[[Any, Sequence[Any], Sequence[Any], int], Asked]
    """ask(prompter, examples, shots, seed)."""
    prompter: Callable[[Template], Any]
    flops: Callable[[float, float], float]
    stages: list[Any]


def load_system(config: PromptConfig, data: Any) -> System:
    """Loads the model.

    Raises:
      UserError: it cannot write, or the tokenizer has no end token.
    """
    from medjax.scoring.lineage import origin_name
    from medjax.tasks.prompts import Prompter
    from medjax.training.asking import load_asker

    asker = load_asker(config)
    chat = asker.tokenizer if config.chat and asker.tokenizer.chat_template else None
    chat = None if asker.is_t5 else chat

    def prompter(template: Template) -> Prompter:
        return Prompter(template, data.labels, config.task, chat=chat)

    name = origin_name(config.model)
    return System(name, asker.ask, prompter, asker.flops, asker.stages)


def choose_prompt(config: PromptConfig, data: Any, system: System) -> Template:
    """The best prompt on validation; written to `selection.json` with the scores of all."""
    import numpy as np

    from medjax.scoring.results import LOWER_IS_BETTER
    from medjax.tasks.decode import MAIN_METRICS

    metric = config.metric or MAIN_METRICS[config.task.kind]
    validation = data.splits["validation"]
    order = np.random.default_rng(0).permutation(len(validation))
    some = [validation[i] for i in sorted(order[: config.selection_examples])]
    scores: dict[str, float] = {}
    if len(config.prompts) > 1:
        for template in config.prompts:
            asked = _ask(config, data, system, template, "validation", some, config.seeds[0])
            found = _metrics(config, data, system, template, some, asked)
            values = {own.name: own.value for own in found}
            if metric not in values:
                raise UserError(f"metric {metric!r} is none of {', '.join(values)}")
            scores[template.name] = values[metric]
            log.info("prompt %s: validation %s %.4f", template.name, metric, values[metric])
    sign = 1 if metric in LOWER_IS_BETTER else -1
    best = min(config.prompts, key=lambda own: sign * scores.get(own.name, 0.0))
    record = {"prompt": best.name, "metric": metric, "validation": scores}
    record["labelled_examples"] = (len(some) if scores else 0) + config.shots.count
    path = Path(config.run_dir) / "selection.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return best


def _ask(
    config: PromptConfig,
    data: Any,
    system: System,
    template: Template,
    split: str,
    examples: Sequence[Any],
    seed: int,
) -> Asked:
    """All answers of a prompt, as far as they are not there yet."""
    from medjax.tasks.answers import ask_all
    from medjax.tasks.prompts import choose_shots

    prompter = system.prompter(template)
    shots = choose_shots(data.splits["train"], examples, config.shots, seed)
    folder = Path(config.run_dir) / "answers"
    folder.mkdir(exist_ok=True)
    path = folder / f"{split}-prompt_{config.prompts.index(template)}-seed_{seed}.jsonl"
    return ask_all(path, split, examples, lambda part: system.ask(prompter, part, shots, seed))


def _predictions(
    config: PromptConfig, data: Any, prompter: Any, examples: Any, asked: Asked
) -> Any:
    """What the answers say."""
    import numpy as np

    from medjax.tasks.decode import Predictions, softmax

    if config.mode != "likelihood":
        return prompter.predictions(asked.outputs, examples)
    scores = np.array(asked.outputs)
    return Predictions(scores.argmax(1).tolist(), softmax(scores))


def _metrics(
    config: PromptConfig,
    data: Any,
    system: System,
    template: Template,
    examples: Sequence[Any],
    asked: Asked,
) -> list[Any]:
    from medjax.tasks.decode import metrics_of

    own = _predictions(config, data, system.prompter(template), examples, asked)
    return metrics_of(examples, own, data.labels, config.task)


def _report(
    config: PromptConfig,
    data: Any,
    system: System,
    template: Template,
    asked: Sequence[Asked],
    seeds: list[int],
) -> None:
    """Scores test and writes what medjax.finetune would."""
    from medjax.scoring.lineage import write_lineage
    from medjax.tasks.examples import text_bytes

    test, count = data.splits["test"], len(data.splits["test"])
    prompter = system.prompter(template)
    predictions = [_predictions(config, data, prompter, test, own) for own in asked]
    about = {
        "model": config.model,
        "prompt": template.name,
        "mode": config.mode,
        "int8": config.int8,
        "shots": config.shots.count,
        "tokens_in": [own.tokens_in for own in asked],
        "tokens_out": [own.tokens_out for own in asked],
        "shared_tokens": [own.shared for own in asked],
        "cut": asked[0].cut,
        "seconds_per_example": [round(own.seconds / count, 5) for own in asked],
        "inference": {
            "examples": count,
            "bytes": text_bytes(test),
            "tokens_in": asked[0].tokens_in,
            "tokens_out": asked[0].tokens_out,
            "flops": count * system.flops(asked[0].tokens_in / count, asked[0].tokens_out / count),
            "seconds": round(min(own.seconds for own in asked), 4),
        },
    }
    name = f"{system.name}, {config.shots.count}-shot, {config.mode}"
    write_lineage(Path(config.run_dir), system.stages)
    _write(config, data, name, predictions, seeds, about)


def _write(
    config: PromptConfig,
    data: Any,
    name: str,
    predictions: Sequence[Any],
    seeds: list[int],
    about: dict[str, Any],
) -> None:
    import numpy as np

    from medjax.tasks.decode import MAIN_METRICS
    from medjax.tasks.encode import Rows
    from medjax.tasks.report import Outcome, write_results

    test = data.splits["test"]
    selection = json.loads((Path(config.run_dir) / "selection.json").read_text(encoding="utf-8"))
    used = {"labelled_examples": {name: selection["labelled_examples"]}}
    lengths = [np.zeros(len(example.text.split()), np.int32) for example in test]
    rows = Rows(lengths, None, np.arange(len(test)), [], np.zeros(len(test), bool))
    outcome = Outcome(
        run_dir=Path(config.run_dir),
        task=config.task,
        data=data,
        rows=rows,
        metric=config.metric or MAIN_METRICS[config.task.kind],
        predictions={name: list(predictions)},
        main=name,
        curve={name: config.shots.count},
        seeds=seeds,
        best=seeds[0],
        draws=config.draws,
        write_text=config.write_text and config.mode != "likelihood",
        about=about | used,
    )
    print(write_results(outcome))


def _export(config: PromptConfig, data: Any) -> int:
    """Writes the prompts of test."""
    from medjax.tasks.exchange import write_prompts
    from medjax.tasks.prompts import Prompter, choose_shots

    test = data.splits["test"]
    shots = choose_shots(data.splits["train"], test, config.shots, config.seeds[0])
    prompter = Prompter(config.prompts[0], data.labels, config.task)
    path = Path(config.export)
    write_prompts(path, prompter, test, shots, config.task, allowed=config.allow_export)
    print(f"{path}: {len(test):,} prompts, whole texts; answer with lines of `id` and `output`")
    return 0


def _score_completions(config: PromptConfig, data: Any) -> int:
    """Reads answers that something else wrote, by the rules of the first prompt."""
    from medjax.tasks.exchange import read_completions
    from medjax.tasks.prompts import Prompter

    path, test = Path(config.completions), data.splits["test"]
    outputs = read_completions(path, test)
    prompter = Prompter(config.prompts[0], data.labels, config.task)
    found = prompter.predictions(outputs, test)
    run_dir = Path(config.run_dir)
    record = {"prompt": config.prompts[0].name, "labelled_examples": config.shots.count}
    (run_dir / "selection.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    _write(config, data, path.stem, [found], [1], {"completions": str(path)})
    return 0


if __name__ == "__main__":
    main(PromptConfig, run, __doc__)
