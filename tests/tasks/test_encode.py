"""Rows of token ids: the tokenizer's own template, nothing lost in windows, targets in place."""

import numpy as np
import pytest

from medjax.data.tokenize import load_tokenizer
from medjax.tasks import encode
from medjax.tasks.config import TaskConfig
from medjax.tasks.encode import subset
from medjax.tasks.examples import Answer, Example, Span
from medjax.tasks.tagging import WORD
from medjax.tasks.targets import (
    IGNORED,
    collate,
    row_targets,
    seen,
    text_targets,
    thin_null_windows,
)
from tests.tokenizers import KINDS, small_tokenizer

WORDS = ("no", "fever", "chest", "pain", "metformin", "held", "today", "cough", "afebrile")
TEXT = " ".join(WORDS[i * 7 % 9] for i in range(90))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    for kind in KINDS:
        texts = [TEXT, "Is there fever? [SEP] </s>", "no fever; no cough"] * 3
        small_tokenizer(kind, texts, 300).save_pretrained(folder / kind)
    return {kind: load_tokenizer(folder / kind) for kind in KINDS}


def config(kind="classification", **options):
    return TaskConfig(**{"kind": kind, "train": "x", "max_length": 48, "stride": 8} | options)


def encode_examples(examples, tokenizer, config):
    """As an encoder is given them."""
    windows = config.long == "windows" or config.kind in ("tagging", "question_answering")
    return encode.encode_examples(examples, tokenizer, config, windows=windows)


@pytest.mark.parametrize("kind", KINDS)
def test_one_text_and_pairs_are_as_transformers_has_them(tokenizers, kind):
    tokenizer = tokenizers[kind]
    single = encode_examples([Example("1", "no fever")], tokenizer, config())
    assert single.input_ids[0].tolist() == tokenizer("no fever").input_ids
    pair = encode_examples([Example("1", "no fever", "chest pain")], tokenizer, config())
    expected = tokenizer("no fever", "chest pain", return_token_type_ids=True)
    assert pair.input_ids[0].tolist() == expected.input_ids
    if kind == "wordpiece":
        assert pair.token_type_ids[0].tolist() == expected.token_type_ids
    else:
        assert pair.token_type_ids is None and not any(expected.token_type_ids)


@pytest.mark.parametrize("rule", ["head", "tail", "head_tail"])
def test_what_is_kept_of_a_long_text(tokenizers, rule):
    tokenizer = tokenizers["wordpiece"]
    rows = encode_examples([Example("1", TEXT), Example("2", "no")], tokenizer, config(long=rule))
    bare = tokenizer(TEXT, add_special_tokens=False).input_ids
    kept = {"head": bare[:46], "tail": bare[-46:], "head_tail": bare[:23] + bare[-23:]}[rule]
    assert rows.input_ids[0][1:-1].tolist() == kept
    assert rows.cut.tolist() == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_windows_hold_every_token_and_overlap(tokenizers, kind):
    tokenizer = tokenizers[kind]
    rows = encode_examples([Example("1", TEXT)], tokenizer, config(long="windows"))
    ends = {"wordpiece": (1, 1), "bpe": (1, 1), "unigram": (0, 1)}[kind]
    bare = tokenizer(TEXT, add_special_tokens=False, return_offsets_mapping=True)
    starts = [tuple(pair) for pair in bare.offset_mapping]
    seen, end = [], None
    for ids, places in zip(rows.input_ids, rows.places, strict=True):
        assert len(ids) <= 48
        own = [tuple(pair) for pair in places[ends[0] : len(ids) - ends[1]]]
        begin = starts.index(own[0])
        assert starts[begin : begin + len(own)] == own
        assert end is None or end - begin >= 8
        end = begin + len(own)
        seen += own
    assert set(seen) == set(starts) and not rows.cut.any()


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_found_again_in_their_window(tokenizers, kind):
    """And a window without the answer is one without answer."""
    tokenizer, start = tokenizers[kind], TEXT.rindex("metformin", 0, 300)
    end = TEXT.index(" ", start + 12)
    example = Example("1", TEXT, "What is held?", (Answer(TEXT[start:end], start),))
    task = config("question_answering")
    rows = encode_examples([example], tokenizer, task)
    found = 0
    for places, (first, last) in zip(
        rows.places, row_targets([example], rows, [], task), strict=True
    ):
        if (first, last) == (0, 0):
            continue
        found += 1
        assert TEXT[places[first][0] : places[last][1]].strip() == example.gold[0].text
    assert 0 < found < len(rows.input_ids)


def test_windows_without_the_answer_are_thinned_and_no_others(tokenizers):
    text = " ".join(["pain"] * 300 + ["fever"])
    examples = [
        Example(f"q{i}", text, "what is found", (Answer("fever", text.index("fever")),))
        for i in range(20)
    ]
    settings = config("question_answering")
    rows = encode.encode_examples(examples, tokenizers["wordpiece"], settings, windows=True)
    targets = row_targets(examples, rows, [], settings)
    null = sum(not target.any() for target in targets)
    kept, kept_targets = thin_null_windows(rows, targets, 0.1)
    assert null > 100
    answered = [owner for owner, t in zip(kept.example, kept_targets, strict=True) if t.any()]
    assert answered == list(range(20))
    assert 0.03 * null < len(kept_targets) - 20 < 0.25 * null
    assert [len(ids) for ids in kept.input_ids] == list(kept.lengths)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tag_stands_at_the_first_token_of_its_word(tokenizers, kind):
    words = tuple(m.span() for m in WORD.finditer(TEXT))
    spans = tuple(Span((words[i],), "X") for i in range(0, 60, 7))
    example = Example("1", TEXT, gold=spans, words=words)
    task = config("tagging")
    rows = encode_examples([example], tokenizers[kind], task)
    targets = row_targets([example], rows, ["X"], task)
    tagged = {}
    for places, labels in zip(rows.places, targets, strict=True):
        assert ((places[:, 0] >= 0) == (labels != -100)).all()
        for (word, _), label in zip(places, labels, strict=True):
            if word >= 0:
                tagged[int(word)] = int(label)
    assert tagged == {i: int(i % 7 == 0 and i < 60) for i in range(len(words))}


def test_batches_are_padded_and_filled_up(tokenizers):
    examples = [Example(str(i), "no fever " * (i + 1), gold=i % 2) for i in range(3)]
    task = config()
    rows = encode_examples(examples, tokenizers["wordpiece"], task)
    targets = row_targets(examples, rows, ["a", "b"], task)
    batch = collate(rows, targets, np.array([2, 0, -1]), 24, pad_id=0)
    assert batch["input_ids"].shape == (3, 24) and batch["weight"].tolist() == [1, 1, 0]
    assert batch["labels"].tolist() == [0, 0, 0]
    assert batch["attention_mask"].sum(1).tolist() == [rows.lengths[2], rows.lengths[0], 1]
    kept = subset(rows, np.array([False, True, True]))
    assert kept.example.tolist() == [0, 1] and len(kept.input_ids) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 1, 20, 39])
def test_a_sentence_is_seen_in_its_document_and_said_again(tokenizers, kind, place):
    tokenizer = tokenizers[kind]
    document = tuple(f"{WORDS[i % 9]} {WORDS[i // 9]} today" for i in range(40))
    example = Example("1", document[place], document=document, place=place)
    rows = encode_examples([example], tokenizer, config("multilabel", max_length=64))
    said = tokenizer.decode(rows.input_ids[0], skip_special_tokens=True).strip()
    context, own = (part.strip() for part in said.rsplit(";", 1))
    assert own == document[place] and own in context
    assert context in " ".join(document)
    assert 56 <= len(rows.input_ids[0]) <= 64 and not rows.cut[0]
    if place == 20:  # both sides alike
        left, right = (part.split() for part in context.split(own, 1))
        assert abs(len(left) - len(right)) <= 4


def test_a_sentence_takes_half_of_the_row_at_most(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    example = Example("1", TEXT, document=("before", TEXT, "after"), place=1)
    rows = encode_examples([example], tokenizer, config("multilabel", max_length=33))
    ids = rows.input_ids[0].tolist()
    assert rows.cut[0] and len(ids) == 33 and ids[1:16] == ids[17:32]


def test_what_a_t5_is_to_write(tokenizers):
    tokenizer = tokenizers["unigram"]
    examples = [
        Example("1", "no fever", gold="cough and fever"),
        Example("2", "no", gold=" ".join(WORDS * 5)),
    ]
    task = config("text_to_text", max_target_length=30)
    rows = encode_examples(examples, tokenizer, task)
    targets, cut = text_targets(examples, rows, (), task, tokenizer)
    assert targets[0].tolist() == tokenizer("cough and fever").input_ids
    assert cut == 1 and len(targets[1]) == 30 and targets[1][-1] == tokenizer.eos_token_id
    batch = collate(rows, targets, np.array([0, -1]), 8, tokenizer.pad_token_id, 32)
    assert batch["labels"].shape == (2, 32) and (batch["labels"][1] == IGNORED).all()
    assert batch["labels"][0, : len(targets[0])].tolist() == targets[0].tolist()


def test_a_window_of_tagging_is_asked_for_what_it_holds(tokenizers):
    tokenizer = tokenizers["unigram"]
    words = tuple(match.span() for match in WORD.finditer(TEXT))
    spans = tuple(Span((word,), "X") for word in words[::4])
    example = Example("1", TEXT, gold=spans, words=words)
    task = config("tagging", max_target_length=200)
    rows = encode_examples([example], tokenizer, task)
    assert len(rows.input_ids) > 2
    targets, _ = text_targets([example], rows, ("X",), task, tokenizer)
    for places, own in zip(rows.places, targets, strict=True):
        start, end = seen(example, places, task)
        inside = [s for s in spans if start <= s.fragments[0][0] and s.fragments[0][1] <= end]
        written = tokenizer.decode(own, skip_special_tokens=True)
        assert len([part for part in written.split(";") if part.strip()]) == len(inside)
