"""Evaluation masks: the same words and bytes whatever the tokenizer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.data.tokenize import Encoder
from medjax.data.word_spans import draw_word_spans, words_of_tokens
from tests.tokenizers import KINDS

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1
)


@pytest.fixture(scope="module")
def encoders(tokenizer_folders):
    return {kind: Encoder(tokenizer_folders[kind]) for kind in KINDS}


def masked_bytes(encoder, text):
    """Bytes by masked word, summed over the tokens that touch it."""
    document = encoder.encode([text], offsets=True)[0]
    spans = draw_word_spans(text)
    words = words_of_tokens(text, spans, document.offsets)
    assert words.dtype == np.uint16 and len(words) == len(document.ids)
    sums = []
    for start, end in spans:
        touching = (document.offsets[:, 0] < end) & (document.offsets[:, 1] > start)
        sums.append(int((words[touching].astype(int) - 1).sum()))
        assert (words[touching] > 0).all()
    assert int((words.astype(int) - 1).clip(0).sum()) == sum(sums)
    return spans, sums


def test_spans_are_whole_words_covering_15_percent(notes):
    total = masked = 0
    lengths = []
    for text in notes:
        spans = draw_word_spans(text)
        words = text.split()
        total, masked = total + len(words), masked + len(spans)
        assert abs(len(spans) - 0.15 * len(words)) <= 0.5
        for start, end in spans:
            assert not any(c.isspace() for c in text[start:end])
            assert start == 0 or text[start - 1].isspace()
            assert end == len(text) or text[end].isspace()
        between = [text[a:b].strip() for a, b in zip(spans[:-1, 1], spans[1:, 0], strict=True)]
        runs = np.split(spans, [i + 1 for i, gap in enumerate(between) if gap])
        lengths += [len(run) for run in runs if len(run)]
    assert 0.14 < masked / total < 0.16
    assert set(lengths) == {1, 2, 3} and 1.8 < np.mean(lengths) < 2.1


def test_spans_are_a_pinned_function_of_the_text():
    text = "The patient was seen in clinic today and denies fever, chills or chest pain at rest."
    spans = draw_word_spans(text)
    assert [text[a:b] for a, b in spans] == ["was", "seen"]
    np.testing.assert_array_equal(draw_word_spans(text), spans)
    assert len(draw_word_spans("Seen in clinic")) == 0 and len(draw_word_spans("")) == 0


def test_masked_bytes_are_equal_for_every_tokenizer(encoders, notes):
    for text in notes[:60] + notes[-1:]:
        spans = draw_word_spans(text)
        true = [len(text[a:b].encode()) for a, b in spans]
        for encoder in encoders.values():
            assert masked_bytes(encoder, text)[1] == true


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(WORDS, st.sampled_from(["½", "a\u0301", "ﬁ", "x\u200by"])), min_size=4))
def test_masked_bytes_are_equal_on_any_characters(encoders, words):
    text = " ".join(words)
    true = [len(text[a:b].encode()) for a, b in draw_word_spans(text)]
    for encoder in encoders.values():
        assert masked_bytes(encoder, text)[1] == true


def test_bytes_of_shared_dropped_and_split_characters():
    text = "ab é\u0301f"
    spans = np.array([[3, 6]])
    # one token for the e (two tokens: bytes of one character), accent dropped, one for f
    offsets = np.array([[0, 0], [0, 2], [3, 4], [3, 4], [5, 6], [0, 0]], np.int32)
    assert words_of_tokens(text, spans, offsets).tolist() == [0, 0, 5, 1, 2, 0]
    # the first character of the word is dropped: its bytes go to the token behind it
    offsets = np.array([[0, 2], [5, 6]], np.int32)
    assert words_of_tokens(text, spans, offsets).tolist() == [0, 6]
