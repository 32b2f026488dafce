"""Divides examples by group, looks for leaks between the sides, and takes fractions of labels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from medjax.config import UserError
from medjax.data.dedup import text_key
from medjax.tasks.config import SplitConfig
from medjax.tasks.examples import SPLITS, TEST, TRAIN, VALIDATION, Example


def divide(splits: dict[str, list[Example]], config: SplitConfig) -> dict[str, list[Example]]:
    """Takes missing validation and test sets out of train: whole groups, always the same ones."""
    found = dict(splits)
    for name, share in ((TEST, config.test), (VALIDATION, config.validation)):
        if name in found:
            continue
        groups = sorted({example.group for example in found[TRAIN]})
        groups.sort(key=lambda group, name=name: _chance(group, config.seed, name))
        count = max(1, round(share * len(groups)))
        if count >= len(groups):
            raise UserError(
                f"the training examples are of {len(groups):,} groups, of which {share:g} for "
                f"{name} would leave none to train on; give a file for it, or a smaller share"
            )
        own = set(groups[:count])
        kept = [example for example in found[TRAIN] if example.group not in own]
        found[name] = [example for example in found[TRAIN] if example.group in own]
        found[TRAIN] = kept
    return {name: found[name] for name in SPLITS}


def count_leaks(splits: dict[str, list[Example]]) -> dict[str, int]:
    """Validation and test examples of which id, group or text is also on another side.

    Texts are equal if they differ in white space and case alone.
    """
    found: dict[str, int] = {}
    for later in (VALIDATION, TEST):
        for earlier in SPLITS[: SPLITS.index(later)]:
            for what, of in (("id", _own_id), ("group", _group), ("text", _text)):
                known = {of(example) for example in splits[earlier]} - {None}
                count = sum(of(example) in known for example in splits[later])
                if count:
                    found[f"{later} examples with the {what} of one in {earlier}"] = count
    return found


def refuse_leaks(leaks: dict[str, int], *, allowed: bool) -> None:
    """Raises a UserError with the counts unless leaks are allowed."""
    if leaks and not allowed:
        listed = "".join(f"  {count:,} {what}\n" for what, count in leaks.items())
        raise UserError(
            f"the splits are not apart:\n{listed}  remove these, name the column of what belongs "
            "together (columns.group), or set allow_leaks to go on and have them counted"
        )


def fraction(examples: Sequence[Example], share: float, seed: int) -> np.ndarray:
    """Which examples make up a share: whole groups, smaller shares within larger, classes alike.

    A group counts for its most frequent class.
    """
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.group].append(example)
    strata: dict[str, list[str]] = defaultdict(list)
    for name, own in groups.items():
        golds = [repr(example.gold) for example in own if not isinstance(example.gold, tuple)]
        strata[max(sorted(set(golds)), key=golds.count) if golds else ""].append(name)
    chosen: set[str] = set()
    for names in strata.values():
        names.sort(key=lambda name: _chance(name, seed, "fraction"))
        chosen.update(names[: max(1, round(share * len(names)))])
    return np.array([example.group in chosen for example in examples])


def group_numbers(examples: Sequence[Example]) -> np.ndarray:
    """Which cluster each example belongs to, for intervals."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(e.group, len(numbers)) for e in examples], np.int64)


def _chance(name: str, seed: int, use: str) -> float:
    digest = hashlib.blake2b(f"{seed}\0{use}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def _own_id(example: Example) -> str | None:
    """Ids made of file names and numbers tell nothing."""
    return None if ":" in example.id and example.id.rsplit(":", 1)[1].isdigit() else example.id


def _group(example: Example) -> str | None:
    return None if example.group == example.id else example.group


def _text(example: Example) -> bytes:
    return text_key(f"{example.text}\0{example.text_pair or ''}".lower())
