"""Random walks through constraints never get stuck and write what is allowed, however tokenized."""

import functools
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.config import UserError
from medjax.decoding import constrain
from medjax.decoding.automaton import (
    HOLE,
    build_automaton,
    json_of,
    one_of,
    several_of,
    stop_automaton,
    token_bytes,
)
from medjax.decoding.constrain import Tables
from medjax.decoding.passages import passages_of, token_lookup
from tests.tokenizers import KINDS, small_tokenizer

NOTE = "Patient denies chest pain; febbre è assente. Metformin 500 mg, then   metformin\nheld."
LABELS = ["yes", "no", "chest pain", "chest", "è assente"]
SCHEMA = {
    "type": "object",
    "properties": {
        "drug": {"enum": ["metformin", "none"]},
        "dose": {"type": "integer"},
        "held": {"type": "boolean"},
    },
    "required": ["drug", "dose", "held"],
}
SPANS = f"(none| ?Drug ?:{HOLE}( ?; Drug ?:{HOLE})*)"  # WordPiece has spaces before punctuation


@functools.cache
def tokens_of(kind):
    texts = [NOTE, *LABELS, '{"drug": "metformin", "dose": 500, "held": true}', "Drug: none;"] * 5
    tokenizer = small_tokenizer(kind, texts, 170 if kind != "bpe" else 320)
    size = len(tokenizer) + 3  # a model may have more rows
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    return tokenizer, token_bytes(tokenizer, size), end


def walk(kind, automaton, length, rows=40, texts=None, must_end=True, without=""):
    """Random outputs; in every step something must be allowed."""
    _, tokens, end = tokens_of(kind)
    size = len(tokens)
    passages = passages_of(texts, token_lookup(tokens, without)) if texts else None
    tables = jax.tree.map(jnp.asarray, Tables(automaton, passages))

    @jax.jit
    def step(place, scores, left):
        bias = constrain.bias(tables, place, left, size)
        ids = jnp.argmax(scores[:, None] + bias, axis=-1)
        return ids, constrain.follow(tables, place, None, ids, left), bias

    numbers, place = np.random.default_rng(0), constrain.start(tables, rows, 1)
    written = np.full((rows, length), end)
    for position in range(length):
        scores = numbers.gumbel(size=(rows, size)).astype(np.float32)
        ids, place, bias = step(place, scores, jnp.int32(length - position))
        assert (np.asarray(bias) == 0).any(-1).all(), "a dead end"
        written[:, position] = ids[:, 0]
    found = []
    for row in written:
        ends = np.flatnonzero(row == end)
        assert ends.size or not must_end, "cut off"
        count = ends[0] if ends.size else length
        assert (row[count:] == end).all()
        found.append(b"".join(tokens[i] or b"" for i in row[:count]).decode(errors="replace"))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [8, 30])
def test_labels(kind, length):
    _, tokens, end = tokens_of(kind)
    found = walk(kind, build_automaton(one_of(LABELS), tokens, [end]), length)
    assert {text.strip() for text in found} >= ({"yes", "no"} if length > 8 else {"no"})
    assert {text.strip() for text in found} <= set(LABELS)


@pytest.mark.parametrize("kind", KINDS)
def test_several_labels_keep_their_order(kind):
    _, tokens, end = tokens_of(kind)
    automaton = build_automaton(several_of(LABELS, ", ", "none"), tokens, [end])
    orders = set()
    for text in walk(kind, automaton, 40, rows=80):
        parts = [] if text.strip() == "none" else [p.strip() for p in text.split(",")]
        places = [LABELS.index(part) for part in parts]
        assert places == sorted(set(places))
        orders.add(tuple(places))
    assert {len(order) for order in orders} >= {0, 1, 2, 3}


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("length", [60, 100])
def test_json_by_a_schema(kind, length):
    _, tokens, end = tokens_of(kind)
    automaton = build_automaton(json_of(SCHEMA), tokens, [end])
    for text in walk(kind, automaton, length):
        found = json.loads(text)
        assert found["drug"] in ("metformin", "none") and isinstance(found["held"], bool)
        assert isinstance(found["dose"], int)


def test_what_cannot_be_spelled():
    """A T5's vocabulary has no braces; WordPiece puts spaces inside of quotes."""
    _, tokens, end = tokens_of("unigram")
    without = [None if token and b"{" in token else token for token in tokens]
    for own, last in ((without, end), tokens_of("wordpiece")[1:]):
        with pytest.raises(UserError, match="cannot spell any output"):
            build_automaton(json_of(SCHEMA), own, [last])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [16, 50])
def test_passages_stand_verbatim_in_the_own_text(kind, length):
    _, tokens, end = tokens_of(kind)
    texts = [NOTE, "no pain at all", "è è è µg", "", "\u4e2d\u6587"] * 12
    automaton = build_automaton(SPANS, tokens, [end])
    found = walk(kind, automaton, length, rows=60, texts=texts)
    counts = []
    for text, own in zip(found, texts, strict=True):
        plain = " ".join(own.split())
        if text.strip() == "none":
            continue
        counts.append(len(re.split(r"(?:^ ?| ?; )Drug ?:", text)[1:]))
        for part in re.split(r"(?:^ ?| ?; )Drug ?:", text)[1:]:
            before, after = (
                r"\b" if c.isalnum() else "" for c in (part.strip()[0], part.strip()[-1])
            )
            assert re.search(before + re.escape(part.strip()) + after, plain), (part, plain)
    assert sum(counts) > 10 and (max(counts) > 1 or length < 20)


@pytest.mark.parametrize("kind", KINDS)
def test_passages_hold_nothing_that_separates_them(kind):
    """Else an answer could not be read: "Drug: a; b" are two entities, the second of no type."""
    _, tokens, end = tokens_of(kind)
    text = "none; Drug: none; ; 500"
    for without in ("", ";"):
        automaton = build_automaton(f" ?Drug ?:{HOLE}", tokens, [end])
        found = walk(kind, automaton, 16, texts=[text] * 40, without=without)
        held = [answer.partition(":")[2].strip() for answer in found]
        assert len(set(held)) > 2 and all(held)
        assert any(";" in passage for passage in held) == (without == "")


EXPRESSIONS = [
    "a(b)?",
    "a(, b)?(, c)?|b",
    "(a|ab)(c|bcd)*",
    "a{1,3}b*",
    "^(a|b+c)$",
    "a*",
    "(ab?)+c?",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_language_is_that_of_the_expression(expression):
    """Every string of a few letters, an output that another begins with included."""
    letters = "abc, "
    tokens = [None, *(letter.encode() for letter in letters)]
    automaton, accepted = build_automaton(expression, tokens, [0]), 0
    for length in range(6):
        for text in map("".join, itertools.product(letters, repeat=length)):
            state = 0
            for letter in text:
                state = automaton.next[state, automaton.class_of[1 + letters.index(letter)]]
                if state < 0:
                    break
            ends = state >= 0 and automaton.next[state, automaton.class_of[0]] >= 0
            assert ends == bool(re.fullmatch(f" ?({expression.strip('^$')})", text)), text
            accepted += ends
    assert accepted > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_string_may_be_tokenized_in_any_way(kind):
    _, tokens, end = tokens_of(kind)
    automaton = build_automaton(one_of(["chest pain"]), tokens, [end])

    def ways(state):
        """Token sequences from a state to the end."""
        if state == len(automaton.next) - 1:
            return 1
        following = automaton.next[state, automaton.class_of]
        ids = [
            i
            for i in np.flatnonzero(following >= 0)
            if automaton.cost[automaton.row_of[state], i] < 60000
        ]
        return sum(ways(int(following[i])) for i in ids)

    count = ways(0)
    spelled = {}
    text = " chest pain"
    for target in ("chest pain", " chest pain"):
        reach = [1] + [0] * len(target)
        for place in range(len(target)):
            for token in tokens:
                if token and target[place:].encode().startswith(token):
                    reach[place + len(token)] += reach[place]
        spelled[target] = reach[-1]
    assert count == sum(spelled.values()) > 1, text


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_text_ends_the_output_wherever_it_stands(kind):
    _, tokens, end = tokens_of(kind)
    automaton = stop_automaton(["st", "pain"], tokens, [end])
    found = walk(kind, automaton, 40, rows=60, must_end=False)
    cut = [text for text in found if re.search("st|pain", text)]
    assert len(cut) > 3
    for text in found:
        first = re.search("st|pain", text)
        assert not first or len(text) - first.end() < 16  # no more than the token that held it
    assert len(set(map(len, found))) > 3


def test_bad_constraints_are_refused():
    _, tokens, end = tokens_of("bpe")
    with pytest.raises(UserError, match="regular expression is wrong"):
        build_automaton("(", tokens, [end])
    with pytest.raises(UserError, match="needs a tokenizer with an end token"):
        build_automaton("a", tokens, [])
    with pytest.raises(UserError, match="states over this vocabulary"):
        build_automaton("a{5000}", tokens, [end])
    nested = {"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}}
    with pytest.raises(UserError, match="not bounded: #/\\$defs/n refers to itself"):
        json_of(nested | {"$ref": "#/$defs/n"})
    for keyword in ({"minimum": 0}, {"uniqueItems": True}):
        with pytest.raises(UserError, match=f"{next(iter(keyword))} cannot be held to"):
            json_of({"type": "integer"} | keyword)
    with pytest.raises(UserError, match="which is not there"):
        json_of({"$ref": "#/$defs/missing"})
