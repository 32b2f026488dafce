"""Constraints as automata over token ids: what may be written, and how to write it to the end.

A regular expression becomes an automaton over bytes (outlines-core), and this one over tokens, by
walking every token through it from every state; so a string may be tokenized in any way. For each
state and token stands how many tokens the shortest way to an end then takes: the loop allows what
the room that is left suffices for, so that an output is never cut off.

A HOLE in an expression stands for a passage of the row's own text (`passages.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt16

from medjax.config import UserError

HOLE = "\x00"
LAST = "\x01"  # ends the expression of an output, and is never written
FORBIDDEN = np.iinfo(np.uint16).max
MAX_STATES = 4096
MAX_CELLS = 2**28  # states times tokens while an automaton is made
SPACE = "▁"  # SentencePiece's
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
DEAD = -1
PASSAGE = 8  # tokens that are kept free for a passage, before its first one is chosen
BEYOND_REGULAR = (  # JSON schema keywords that an expression cannot hold outputs to
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("uniqueItems", "contains", "not", "if", "dependentRequired", "dependentSchemas"),
)


class Automaton(NamedTuple):
    """States 0 to S - 2, and S - 1 after the end; tokens in classes that no state tells apart."""

    next: Int32[np.ndarray, "S C"]
    """The state after a token of a class; -1: none."""
    class_of: Int32[np.ndarray, " V"]
    row_of: Int32[np.ndarray, " S"]
    row_without: Int32[np.ndarray, " S"]
    """The same where a row's text has no passage that could be written."""
    cost: UInt16[np.ndarray, "R V"]
    """Rows of `row_of`: the tokens from here to the end by way of a token, itself and the end token
    included; FORBIDDEN: no way."""
    after_hole: Int32[np.ndarray, " S"]
    """The state after a passage that begins in a state; -1: none does."""
    hole_cost: UInt16[np.ndarray, " S"]
    """As `cost`, for a token of a passage after which the passage may end."""

    @property
    def shortest(self) -> int:
        """Tokens of the shortest output, the end token included."""
        begun = int(self.hole_cost[0]) + PASSAGE - 1 if self.after_hole[0] >= 0 else FORBIDDEN
        return min(int(self.cost[self.row_of[0]].min()), begun)


def one_of(labels: Sequence[str]) -> str:
    """The expression of one of several texts."""
    return "(" + "|".join(re.escape(label) for label in labels) + ")"


def several_of(labels: Sequence[str], separator: str, none: str = "") -> str:
    """The expression of any of several texts in their order, with a separator between them.

    Args:
      none: what stands for none of them.
    """
    between = re.escape(separator)
    tails, tail = [], ""
    for label in reversed(labels):
        tails.append(re.escape(label) + tail)
        tail = f"({between}{re.escape(label)})?" + tail
    return "(" + "|".join([re.escape(none), *reversed(tails)]) + ")"


def json_of(schema: dict[str, Any]) -> str:
    """The expression of JSON by a schema.

    Raises:
      UserError: the schema refers to itself, so that its depth is unbounded, or asks for what no
        expression can hold outputs to.
    """
    from outlines_core import json_schema

    _check_schema(schema, schema, ())
    try:
        return json_schema.build_regex_from_schema(json.dumps(schema))
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"the JSON schema cannot be a constraint: {error}") from None


def _check_schema(schema: Any, whole: dict[str, Any], within: tuple[str, ...]) -> None:
    """Refuses references that lead back to themselves, and what is no regular language."""
    if isinstance(schema, list):
        for item in schema:
            _check_schema(item, whole, within)
    if not isinstance(schema, dict):
        return
    for name in BEYOND_REGULAR:
        if name in schema:
            raise UserError(
                f"the JSON schema's {name} cannot be held to; remove it and check later"
            )
    target = schema.get("$ref")
    if isinstance(target, str):
        if target in within:
            raise UserError(
                f"the JSON schema is not bounded: {target} refers to itself; write the levels out"
            )
        found: Any = whole
        for part in target.removeprefix("#").strip("/").split("/"):
            if part and not (isinstance(found, dict) and part in found):
                raise UserError(f"the JSON schema refers to {target}, which is not there")
            found = found[part] if part else found
        _check_schema(found, whole, (*within, target))
    for name, value in schema.items():
        if name == "properties":  # names of the user's, not keywords
            _check_schema(list(value.values()), whole, within)
        elif name not in ("$defs", "definitions", "enum", "const"):
            _check_schema(value, whole, within)


def token_bytes(tokenizer: Any, size: int) -> list[bytes | None]:
    """What each id writes; None for special tokens and ids without a token.

    Args:
      tokenizer: a fast tokenizer of transformers (byte-level BPE, SentencePiece, WordPiece).
      size: ids of the model, which may be more than the tokenizer's.
    """
    decoders = _decoders(json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder"))
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    found: list[bytes | None] = [None] * size
    letters = _byte_letters() if "ByteLevel" in decoders else {}
    for token, i in tokenizer.get_vocab().items():
        if i in special or i >= size:
            continue
        if "ByteLevel" in decoders:
            if i in tokenizer.added_tokens_decoder:
                found[i] = token.encode()
            else:
                found[i] = bytes(letters[letter] for letter in token)
        elif "WordPiece" in decoders:
            plain = token.startswith("##") or token in (".", ",", "!", "?")
            found[i] = (token.removeprefix("##") if plain else " " + token).encode()
        else:
            byte = BYTE_TOKEN.fullmatch(token) if "ByteFallback" in decoders else None
            found[i] = bytes([int(byte[1], 16)]) if byte else token.replace(SPACE, " ").encode()
    return found


def _decoders(decoder: dict[str, Any] | None) -> list[str]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [kind for own in decoder["decoders"] for kind in _decoders(own)]
    return [decoder["type"]]


def _byte_letters() -> dict[str, int]:
    """GPT-2's printable letter of each byte, the other way round."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def build_automaton(
    expression: str, tokens: Sequence[bytes | None], end_ids: Sequence[int]
) -> Automaton:
    """The automaton of a regular expression, whose outputs may begin with one space.

    Args:
      tokens: of `token_bytes`.
      end_ids: one of them must follow.

    Raises:
      UserError: the expression is wrong or too large, or the tokens cannot spell any of it.
    """
    if not end_ids:
        raise UserError("a constraint needs a tokenizer with an end token")
    step, final, holes = _byte_automaton(expression)
    rows, order = _walk(step, holes, tokens)
    where = {byte_state: i for i, byte_state in enumerate(order)}
    after_hole = np.array([where.get(int(holes[own]), DEAD) for own in order], np.int32)
    automaton, distance = _assemble(rows, final[order], after_hole, end_ids)
    if not np.isfinite(distance[0]):
        raise UserError(
            "the tokenizer cannot spell any output that the constraint allows; look for characters "
            "that it does not know (a T5 has no braces, for example)"
        )
    return automaton


def stop_automaton(
    stops: Sequence[str], tokens: Sequence[bytes | None], end_ids: Sequence[int]
) -> Automaton:
    """Anything, until one of these texts has been written: then the end (Aho and Corasick 1975)."""
    if not end_ids:
        raise UserError("decoding.stop needs a tokenizer with an end token")
    ends = [stop.encode() for stop in stops]
    begun = sorted({end[:i] for end in ends for i in range(len(end))}, key=len)
    place, over = {text: i for i, text in enumerate(begun)}, len(begun)
    step = np.full((over + 1, 256), over, np.int32)
    for text, i in place.items():
        for byte in range(256):
            written = text + bytes([byte])
            if not written.endswith(tuple(ends)):
                while written not in place:
                    written = written[1:]
                step[i, byte] = place[written]
    rows, order = _walk(step, np.full(len(step), DEAD), tokens)
    rows[:, [token is None for token in tokens]] = 0
    if over in order:
        rows[order.index(over)] = DEAD
    none = np.full(len(order), DEAD, np.int32)
    automaton, _ = _assemble(rows, np.ones(len(order), bool), none, end_ids)
    return automaton._replace(cost=np.where(automaton.cost < FORBIDDEN, 1, FORBIDDEN))


def _assemble(
    rows: Int32[np.ndarray, "S V"],
    final: Bool[np.ndarray, " S"],
    after_hole: Int32[np.ndarray, " S"],
    end_ids: Sequence[int],
) -> tuple[Automaton, np.ndarray]:
    """The automaton of token transitions, and the tokens from each state to the end."""
    states = len(rows)
    final, after_hole = np.append(final, True), np.append(after_hole, DEAD).astype(np.int32)
    # Tokens that no state tells apart are a class; so is the end, which leads to the last state.
    _, firsts, class_of = np.unique(_hashed(rows), return_index=True, return_inverse=True)
    following = np.full((states + 1, len(firsts) + 1), DEAD, np.int32)
    following[:states, :-1] = rows[:, firsts]
    following[final, -1] = states
    class_of = class_of.astype(np.int32)
    class_of[list(end_ids)] = len(firsts)
    distance = _distances(following, after_hole)
    without = _distances(following, np.full_like(after_hole, DEAD))
    costs = [
        _bounded(np.where(following >= 0, 1.0 + own[following], np.inf))
        for own in (distance, without)
    ]
    # A passage ends after any of its tokens, so that one more leaves the way from here as it is.
    hole_cost = 1.0 + np.where(after_hole >= 0, distance[after_hole], distance)
    unique, row_of = np.unique(np.concatenate(costs), axis=0, return_inverse=True)
    automaton = Automaton(
        following,
        class_of,
        *np.split(row_of.reshape(-1).astype(np.int32), 2),
        unique[:, class_of],
        after_hole,
        _bounded(hole_cost),
    )
    return automaton, distance


def _bounded(cost: np.ndarray) -> np.ndarray:
    """Costs as uint16, the unreachable FORBIDDEN."""
    return np.minimum(cost, FORBIDDEN).astype(np.uint16)


def _byte_automaton(expression: str) -> tuple[np.ndarray, Bool[np.ndarray, " S"], np.ndarray]:
    """(next state of each state and byte, final states, state after a hole), state 0 first."""
    from outlines_core import Index, Vocabulary

    end = 256
    expression = expression.removeprefix("^")
    if expression.endswith("$") and not expression.endswith("\\$"):
        expression = expression.removesuffix("$")
    try:
        # The library loses what goes on from where an output may end (0.2.14: from `a` in `a(b)?`).
        # With a last byte of its own no output may end where another goes on.
        bounded = f" ?({expression}){LAST}"
        index = Index(bounded, Vocabulary(end, {bytes([b]): [b] for b in range(256)}))
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"the constraint's regular expression is wrong: {error}") from None
    transitions, finals = index.get_transitions(), set(index.get_final_states())
    first = index.get_initial_state()
    names = [first, *sorted((set(transitions) | finals) - {first})]
    if len(names) > 16 * MAX_STATES:
        raise UserError(f"the constraint has {len(names):,} states, of {16 * MAX_STATES:,} allowed")
    place = {name: i for i, name in enumerate(names)}
    step = np.full((len(names), 256), DEAD, np.int32)
    for name, out in transitions.items():
        for byte, target in out.items():
            if byte != end:
                step[place[name], byte] = place[target]
    over = np.array([name in finals for name in names])
    last = step[:, ord(LAST)]
    final, holes = (last >= 0) & over[last], step[:, 0].copy()
    step[:, [0, ord(LAST)]] = DEAD
    return step, final, holes


def _walk(
    step: np.ndarray, holes: np.ndarray, tokens: Sequence[bytes | None]
) -> tuple[Int32[np.ndarray, "S V"], list[int]]:
    """Where every token leads from every state that tokens reach; those states of the bytes."""
    written = [token or b"" for token in tokens]
    lengths = np.array([len(token) for token in written])
    longest_first = np.argsort(-lengths, kind="stable")
    letters = np.zeros((len(tokens), max(1, lengths.max())), np.uint8)
    for row, i in enumerate(longest_first):
        letters[row, : lengths[i]] = np.frombuffer(written[i], np.uint8)
    alive = [int((lengths > place).sum()) for place in range(letters.shape[1])]
    # One more state, from which nothing leads: -1 as an index.
    table = np.concatenate([step, np.full((1, 256), DEAD, np.int32)])
    order, where, rows = [0], {0: 0}, []
    while len(rows) < len(order):
        if len(order) > MAX_STATES or len(order) * len(tokens) > MAX_CELLS:
            limit = min(MAX_STATES, MAX_CELLS // len(tokens))
            raise UserError(
                f"the constraint has more than {limit:,} states over this vocabulary; bound its "
                "repetitions, or divide it"
            )
        current = np.full(len(tokens), order[len(rows)], np.int32)
        current[alive[0] :] = DEAD
        for place, count in enumerate(alive):
            current[:count] = table[current[:count], letters[:count, place]]
        row = np.full(len(tokens), DEAD, np.int32)
        row[longest_first] = current
        reached = [int(s) for s in np.unique(row) if s >= 0]
        hole = int(holes[order[len(rows)]])
        for state in [*reached, *([hole] if hole >= 0 else [])]:
            if state not in where:
                where[state] = len(order)
                order.append(state)
        rows.append(row)
    renumbered = np.full(len(step) + 1, DEAD, np.int32)
    for state, i in where.items():
        renumbered[state] = i
    return renumbered[np.stack(rows)], order


def _hashed(rows: np.ndarray) -> np.ndarray:
    """A number for each column, different for different ones but for one chance in 2**64."""
    factors = np.random.default_rng(0).integers(1, 2**63, len(rows), np.uint64) * 2 + 1
    total = np.zeros(rows.shape[1], np.uint64)
    for factor, row in zip(factors, rows, strict=True):
        total += factor * (row.astype(np.int64) + 2).astype(np.uint64)
    return total


def _distances(following: np.ndarray, after_hole: np.ndarray) -> np.ndarray:
    """Tokens to the last state by the shortest way; 0 there; infinite where there is none."""
    distance = np.full(len(following), np.inf)
    distance[-1] = 0
    while True:
        shorter = np.where(following >= 0, 1 + distance[following], np.inf).min(1)
        quoted = np.where(after_hole >= 0, PASSAGE + distance[after_hole], np.inf)
        shorter = np.minimum(shorter, quoted)
        shorter[-1] = 0
        if np.array_equal(shorter, distance):
            return distance
        distance = shorter
