"""tensorflow-text, where it exists, reads what is trained here and gives the same ids.

A second oracle beside `tokenizers`, of another make; on ASCII words, where it is known to agree.
"""

import json

import numpy as np
import pytest

from medjax.data.sentencepiece_model import sentencepiece_model
from medjax.data.tokenize import Encoder

tensorflow_text = pytest.importorskip("tensorflow_text", reason="no wheel for this platform")


@pytest.fixture(scope="module")
def texts(notes):
    """ASCII notes, in words with single spaces."""
    return [" ".join(note.split()) for note in notes if note.isascii()]


def assert_same(ragged, encoder, texts, most_ties=0):
    """Equal ids; `most_ties` texts may differ where two paths are equally good."""
    bare = [document.ids for document in encoder.encode(texts)]
    template = len(encoder.encode([""])[0].ids)
    ours = [ids[template - 1 : -1] for ids in bare]
    differ = sum(not np.array_equal(a, b) for a, b in zip(ours, ragged, strict=True))
    assert differ <= most_ties


def test_wordpiece(tokenizer_folders, texts):
    encoder = Encoder(tokenizer_folders["wordpiece"], for_corpus=True)
    pieces = encoder.tokenizer.get_vocab()
    fast = tensorflow_text.FastBertTokenizer(
        vocab=sorted(pieces, key=pieces.get),
        max_bytes_per_word=100,
        token_out_type=np.int32,
        lower_case_nfd_strip_accents=False,
    )
    assert_same([ids.numpy() for ids in fast.tokenize(texts)], encoder, texts)


def test_unigram(tokenizer_folders, texts):
    encoder = Encoder(tokenizer_folders["unigram"], for_corpus=True)
    state = json.loads(encoder.tokenizer.backend_tokenizer.to_str())
    model = tensorflow_text.SentencepieceTokenizer(sentencepiece_model(state))
    found = [ids.numpy() for ids in model.tokenize(texts)]
    assert_same(found, encoder, texts, most_ties=len(texts) // 50)
