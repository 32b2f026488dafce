"""Prompts: a task's examples as what a language model reads, and what its answers mean.

A template has an instruction, the form of an input and what stands before the answer, in Jinja.
Examples with their answers (shots) come between instruction and input: as turns of a conversation
where the tokenizer has a chat template, else as text. An answer is read by rules that are stated
here and applied to every model alike; what cannot be read is wrong, and counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from medjax.config import UserError
from medjax.tasks.config import TaskConfig
from medjax.tasks.decode import Predictions
from medjax.tasks.entities import entity_strings, folded, read_entities
from medjax.tasks.examples import Example
from medjax.tasks.tagging import tags_of_words
from medjax.tasks.templates import ShotsConfig, Template
from medjax.tasks.text_forms import Parsed, check_labels, parse, target

BETWEEN = "\n\n"
UNKNOWN = -1


class Prompter:
    """A template with the labels and the tokenizer of a run."""

    def __init__(
        self, template: Template, labels: Sequence[str], config: TaskConfig, *, chat: Any = None
    ):
        """Args: chat: a tokenizer with a chat template; none: prompts are plain text.

        Raises:
          UserError: the template is wrong, names a class that is not there, or makes two alike.
        """
        import jinja2

        unknown = set(template.labels) - set(labels)
        if unknown:
            raise UserError(
                f"prompt {template.name}: labels names {', '.join(sorted(unknown))}, of which the "
                f"task knows nothing; it has {', '.join(labels) or 'none'}"
            )
        self.template, self.config, self.chat = template, config, chat
        self.labels = [template.labels.get(label, label) for label in labels]
        check_labels([*self.labels, template.none], config)
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
        )
        try:
            self._input = environment.from_string(template.input)
            instruction = environment.from_string(template.instruction)
            self.instruction = instruction.render(labels=self.labels).strip()
            self._input.render(text="", text_pair="", labels=self.labels)
        except jinja2.TemplateError as error:
            raise UserError(f"prompt {template.name}: {error}") from None

    def prompt(self, example: Example, shots: Sequence[Example]) -> str:
        """All that the model is given for an example.

        Raises:
          UserError: the tokenizer's chat template raises.
        """
        if self.chat is None:
            parts = [self.instruction] if self.instruction else []
            parts += [f"{self.asked(shot)}{self.lead}{self.wanted(shot)}" for shot in shots]
            return BETWEEN.join([*parts, self.asked(example)])
        turns = self.turns(example, shots)
        try:
            return self.chat.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template may raise anything; it is not ours
            raise UserError(
                f"the tokenizer's chat template cannot be used: {type(error).__name__}; set "
                "chat: false for plain prompts"
            ) from None

    def turns(self, example: Example, shots: Sequence[Example]) -> list[dict[str, str]]:
        """The prompt as a conversation; the instruction begins its first turn."""
        turns: list[dict[str, str]] = []
        for shot in shots:
            turns.append({"role": "user", "content": self.asked(shot)})
            turns.append({"role": "assistant", "content": self.wanted(shot)})
        turns.append({"role": "user", "content": self.asked(example)})
        if self.instruction:
            turns[0]["content"] = f"{self.instruction}{BETWEEN}{turns[0]['content']}"
        return turns

    @property
    def lead(self) -> str:
        """Stands between a plain prompt and its answer."""
        return " " if self.template.answer and self.chat is None else ""

    def asked(self, example: Example) -> str:
        """The input of an example, ready for its answer."""
        text = self._input.render(
            text=example.text, text_pair=example.text_pair or "", labels=self.labels
        ).rstrip()
        is_turn = self.chat is not None and not self.template.answer
        return text if is_turn else f"{text}\n{self.template.answer}"

    def wanted(self, example: Example) -> str:
        """What would be right to write."""
        if self.config.kind == "tagging":
            names = self.template.labels
            spans = (span._replace(type=names.get(span.type, span.type)) for span in example.gold)
            example = example._replace(gold=tuple(spans))
        seen, form = (0, len(example.text)), self.template.entities
        text = target(example, self.labels, self.config, seen, form)
        if not text and self.config.kind != "text_to_text":
            return self.template.none
        return text

    def read(self, output: str, example: Example) -> Parsed:
        """What an answer says.

        A class is the one that is written, or else the first that is found in the answer as whole
        words, the longest of those that begin at one place; classes of several are all that are
        found; nothing is what the template says, in the first line.
        """
        output = output.strip()
        first_line = output.split("\n", 1)[0].strip()
        kind, config = self.config.kind, self.config
        if kind == "text_to_text":
            return parse(output, example, self.labels, config, (0, 0))
        is_none = folded(first_line.rstrip(".")) == folded(self.template.none)
        if kind == "question_answering":
            return parse("" if is_none else first_line, example, self.labels, config, (0, 0))
        if kind == "tagging":
            seen, form = (0, len(example.text)), self.template.entities
            found = parse(self._said(output), example, self.labels, config, seen, form)
            names = {shown: own for own, shown in self.template.labels.items()}
            spans = tuple(s._replace(type=names.get(s.type, s.type)) for s in found.value)
            return Parsed(spans, found.understood)
        places = self._places(output)
        if kind == "multilabel":
            known = tuple(sorted({label for _, _, label in places}))
            return Parsed(known, bool(known) or is_none)
        if not places:
            return Parsed(UNKNOWN, False)
        return Parsed(min(places)[2])

    def _places(self, output: str) -> list[tuple[int, int, int]]:
        """(start, minus length, class) of classes in an answer, none within another."""
        found = []
        for i, label in enumerate(self.labels):
            words = r"\s+".join(map(re.escape, label.split()))
            for match in re.finditer(rf"(?<!\w){words}(?!\w)", output, re.IGNORECASE):
                found.append((match.start(), match.start() - match.end(), i))
        found.sort()
        kept: list[tuple[int, int, int]] = []
        for start, length, i in found:
            if not kept or start >= kept[-1][0] - kept[-1][1]:
                kept.append((start, length, i))
        return kept

    def predictions(self, outputs: Sequence[str], examples: Sequence[Example]) -> Predictions:
        """Predictions in the order of the examples."""
        read = [self.read(text, e) for text, e in zip(outputs, examples, strict=True)]
        tags = strings = None
        if self.config.kind == "tagging":
            strings = [self._entities(text) for text in outputs]
            tags = [
                tags_of_words([s for s in own.value if s.fragments[0][0] >= 0], e.words)[0]
                for own, e in zip(read, examples, strict=True)
            ]
        unread = sum(not own.understood for own in read)
        values = [own.value for own in read]
        return Predictions(
            values,
            None,
            tags=tags,
            strings=strings,
            texts=list(outputs),
            not_understood=unread,
        )

    def _entities(self, output: str) -> frozenset[tuple[str, str]]:
        """(type, words) of what is written, wherever it stands in the text or not."""
        names = {shown: own for own, shown in self.template.labels.items()}
        own = entity_strings(read_entities(self._said(output), self.template.entities), self.labels)
        return frozenset((names.get(kind, kind), words) for kind, words in own)

    def _said(self, output: str) -> str:
        """What an answer says of entities: plain, its first line; nothing if that says none."""
        first_line = output.strip().split("\n", 1)[0].strip()
        if folded(first_line.rstrip(".")) == folded(self.template.none):
            return ""
        return first_line if self.template.entities == "plain" else output


def choose_shots(
    train: Sequence[Example], kept_apart: Sequence[Example], config: ShotsConfig, seed: int
) -> list[Example]:
    """The examples that are shown, never of a group of the examples that are asked.

    Raises:
      UserError: there are not as many, or an id is not there.
    """
    if not config.count:
        return []
    groups = {example.group for example in kept_apart}
    free = [example for example in train if example.group not in groups]
    if config.choice == "fixed":
        by_id = {example.id: example for example in free}
        missing = [name for name in config.ids if name not in by_id]
        if missing or len(config.ids) != config.count:
            raise UserError(
                f"shots.ids names {len(config.ids)} examples for a count of {config.count}, of "
                f"which {len(missing)} are not in train apart from test's groups"
            )
        return [by_id[name] for name in config.ids]
    if len(free) < config.count:
        raise UserError(
            f"shots.count {config.count} is more than the {len(free)} examples of train whose "
            "groups are not asked about; lower it"
        )
    order = [free[i] for i in np.random.default_rng([seed, len(free)]).permutation(len(free))]
    if config.choice == "seeded":
        return order[: config.count]
    chosen: list[Example] = []
    while len(chosen) < config.count:  # in rounds: one of each class, in random order
        seen: set[Any] = set()
        for example in [e for e in order if e not in chosen]:
            kind = _class_of(example)
            if kind not in seen and len(chosen) < config.count:
                seen.add(kind)
                chosen.append(example)
    return chosen


def _class_of(example: Example) -> Any:
    """What examples are alike in: class, classes, whether there is anything to be found."""
    gold = example.gold
    if isinstance(gold, tuple):
        return gold if gold and isinstance(gold[0], int) else bool(gold)
    return gold if isinstance(gold, int) else None
