"""Settings of what a language model is given and asked: templates, examples that are shown, tasks
that are learnt together."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from medjax.config import Schema
from medjax.tasks.config import TaskConfig
from medjax.tasks.entities import EntityForm


class Template(Schema):
    """How examples of a task are put to a language model."""

    name: str
    """In tables and in `selection.json`."""
    instruction: str = ""
    """Comes first; Jinja with `labels`, the classes as they are called."""
    input: str = "{{ text }}"
    """An example; Jinja with `text`, `text_pair` and `labels`."""
    answer: str = ""
    """Stands at the end of an input, before what is written, such as `Answer:`."""
    labels: dict[str, str] = {}
    """What classes are called, where it is something else than in the files."""
    entities: EntityForm = "plain"
    """tagging: how they are written: plain, as `kind: words; kind: words`, or as JSON,
    `[{"type": "kind", "text": "words"}]`; `mode: constrained` holds answers to it, and the words to
    the text."""
    none: str = "none"
    """What is to be written for no class, no entity or no answer."""


class AnswersConfig(Schema):
    """How a decoder that is fine-tuned says its answer."""

    form: Literal["text", "head"] = "text"
    """It writes it after a prompt, or has the task's head."""
    prompt: Template | None = None
    """text: how it is asked; by default plainly, for the task's kind."""
    chat: bool = True
    """text: uses the tokenizer's chat template where there is one."""
    packed: bool = True
    """text: several examples of training share a row, attention kept apart, where a step then still
    has about batch_size examples; false: each has a row of its own, as long as those of its
    batch."""
    constrained: bool = False
    """text: answers of validation and test are held to what is possible."""

    @model_validator(mode="after")
    def _only_what_is_read(self) -> Self:
        if self.form == "head" and (self.prompt or self.constrained or not self.packed):
            raise ValueError("prompt, packed and constrained are for form text; remove them")
        return self


_ENTITIES = "Quote all {{ labels | join(' and all ') }} of a text"
DEFAULTS = {
    "classification": Template(
        name="default",
        instruction="Which of these is it? {{ labels | join('; ') }}.",
        input="{{ text }}{% if text_pair %}\n{{ text_pair }}{% endif %}",
        answer="Answer:",
    ),
    "multilabel": Template(
        name="default",
        instruction="Which of these hold? {{ labels | join(', ') }}. Write none if none does.",
        input="{{ text }}",
        answer="Answer:",
    ),
    "tagging": Template(
        name="default",
        instruction=f"{_ENTITIES}, each as `kind: words`, with a semicolon between them, or none.",
        input="Text: {{ text }}",
        answer="Found:",
    ),
    "question_answering": Template(
        name="default",
        instruction="Answer with words of the text, or write none if it holds no answer.",
        input="Text: {{ text }}\nQuestion: {{ text_pair }}",
        answer="Answer:",
    ),
    "text_to_text": Template(name="default", input="{{ text }}", answer="Answer:"),
}
DEFAULTS["relations"] = DEFAULTS["classification"]


class ShotsConfig(Schema):
    """Examples of train that are shown with their answers."""

    count: int = Field(0, ge=0)
    """How many."""
    choice: Literal["stratified", "seeded", "fixed"] = "stratified"
    """stratified: of as many classes as can be; seeded: any; fixed: those of `ids`."""
    ids: list[str] = []
    """fixed: the examples."""


class OtherTask(Schema):
    """A task beside the first one of a training."""

    name: str
    """In tables, and of its folder in the run's `tasks/`."""
    task: TaskConfig
    """Labelled data."""
    prompt: Template | None = None
    """Decoders: how it is asked; by default plainly, for the task's kind."""
    weight: float = Field(1.0, ge=0)
    """How often an epoch goes through its train (0.5: half of it by chance); 0: it is scored only,
    out of distribution."""
    family: str | None = None
    """Tasks of which the mean over tasks takes one mean; by default it is one of its own."""
