"""De-identification placeholders in notes: MIMIC-III's `[**Last Name 123**]`, MIMIC-IV's `___`.

Three forms, by configuration: untouched, one tag for all, or typed tags as Lehman et al. 2023 used
(appendix A.1): their inventory, with numbers as `[Reg#]`, and dates of numbers or month names kept
as the text that they are. What `___` stood for is not published, so it is `[MISC]` when typed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

ONE_TAG = "[DEID]"
MISC = "[MISC]"
TAGS = (
    "[Name]", "[Reg#]", "[Company]", "[LOC]", "[Age]", "[#]", "[DR]", "[State]", "[CI]",
    "[Country]", "[URL]", "[YR]", "[MO]", "[DAY]", MISC,
)  # fmt: skip
UNKNOWN = "placeholder of unknown type, read as [MISC]"

PLACEHOLDER = re.compile(r"\[\*\*(.*?)\*\*\]|_{3,}", re.DOTALL)
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DATE = re.compile(
    rf"[\d\s/.,-]*\d[/-]\d[\d/-]*|(\d+\s+)?({_MONTHS})[a-z]*\.?(\s+\d+)?([\s,]+\d+)?", re.I
)
# The first that occurs decides; the order keeps "Hospital Ward Name" from being a name.
_TYPES = (
    ("[Age]", r"\bage\b"),
    ("[DR]", r"date range"),
    ("[URL]", r"\burl\b|e-?mail|website"),
    ("[CI]", r"telephone|fax|phone|pager|contact"),
    ("[Reg#]", r"number|\bid\b|\bmrn\b|unit no|serial|identifier|medical record|clip"),
    ("[Country]", r"country"),
    ("[State]", r"\bstate\b"),
    ("[Company]", r"company|university|college|employer|organization"),
    ("[LOC]", r"hospital|ward|location|address|street|box|zip|place|clinic|\bunit\b|room"),
    ("[Name]", r"name|initial|attending|dictator|\bdr\b|doctor|nurse|\bpt\b"),
    ("[YR]", r"year"),
    ("[MO]", r"month"),
    ("[DAY]", r"\bday\b|holiday"),
    ("[#]", r"numeric|\bnum\b"),
)  # fmt: skip
_TYPES = tuple((tag, re.compile(pattern, re.IGNORECASE)) for tag, pattern in _TYPES)


def replace_placeholders(text: str, form: str, notices: Counter[str] | None = None) -> str:
    """The text with placeholders in the wanted form: "untouched", "tag" or "typed".

    Args:
      notices: counts placeholders whose type is not known.
    """
    if form == "untouched" or ("[**" not in text and "___" not in text):
        return text

    def tag(match: re.Match[str]) -> str:
        inner = match[1]
        if inner is None:
            return ONE_TAG if form == "tag" else MISC
        inner = " ".join(inner.split())
        if not inner:
            return ""
        if form == "tag":
            return ONE_TAG
        if _DATE.fullmatch(inner):
            return inner
        found = placeholder_type(inner)
        if found is None and notices is not None:
            notices[UNKNOWN] += 1
        return found or MISC

    return PLACEHOLDER.sub(tag, text)


def placeholder_type(inner: str) -> str | None:
    """The tag of what stands between `[**` and `**]`; None if it is of no known kind."""
    if re.fullmatch(r"[\d\s-]+", inner):
        return "[Reg#]"
    return next((tag for tag, pattern in _TYPES if pattern.search(inner)), None)


def tags_of(form: str) -> tuple[str, ...]:
    """The tags that cleaning in this form can write: added tokens of a tokenizer."""
    return {"untouched": (), "tag": (ONE_TAG,), "typed": TAGS}[form]


def remove_tags(texts: Sequence[str], form: str) -> list[str]:
    """The texts without what `tags_of` names."""
    if not tags_of(form):
        return list(texts)
    tags = re.compile(" ?(?:" + "|".join(map(re.escape, tags_of(form))) + ")")
    return [tags.sub("", text) for text in texts]
