"""Divides examples by group, looks for leaks between the sides, and takes fractions of labels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from medjax.config import UserError
from medjax.data.dedup import text_key
from medjax.tasks.config import SplitConfig
from medjax.tasks.examples import SPLITS, TEST, TRAIN, VALIDATION, Example


def divide(splits: dict[str, list[Example]], config: SplitConfig) -> dict[str, list[Example]]:
    """Takes missing test and validation sets out of train: whole groups, always the same ones.

    Raises:
      UserError: nothing would be left to train on, a site has no example, or a date is none.
    """
    found = dict(splits)
    for name, share in ((TEST, config.test), (VALIDATION, config.validation)):
        if name in found:
            continue
        own = _chosen(found[TRAIN], name, share, config)
        kept = [example for example in found[TRAIN] if example.group not in own]
        if not kept:
            raise UserError(
                f"the training examples are of {len(own):,} groups, of which {name} would leave "
                "none to train on; give a file for it, or a smaller share"
            )
        found[name] = [example for example in found[TRAIN] if example.group in own]
        found[TRAIN] = kept
    return {name: found[name] for name in SPLITS}


def _chosen(examples: list[Example], name: str, share: float, config: SplitConfig) -> set[str]:
    """The groups that leave train."""
    if config.by == "site" and name == TEST:
        sites = {e.group for e in examples if dict(e.meta)[config.column] in config.test_sites}
        if not sites:
            known = sorted({dict(e.meta)[config.column] for e in examples})
            raise UserError(
                f"split.test_sites {', '.join(config.test_sites)}: no example has one of them in "
                f"{config.column}; there are {', '.join(known[:20])}"
            )
        return sites
    groups = sorted({example.group for example in examples})
    count = max(1, round(share * len(groups)))
    if config.by == "time":
        latest: dict[str, datetime] = {}
        for example in examples:
            date = _date(dict(example.meta)[config.column], example.id, config.column)
            latest[example.group] = max(date, latest.get(example.group, date))
        groups.sort(key=lambda group: (latest[group], group))
        return set(groups[-count:])
    groups.sort(key=lambda group: _chance(group, config.seed, name))
    return set(groups[:count])


def _date(text: str, name: str, column: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise UserError(
            f"example {name}: its {column} is no date of the form YYYY-MM-DD (HH:MM:SS)"
        ) from None


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
