"""Vocabularies of every family, and notes whose special tokens are text."""

import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.config import UserError
from medjax.data.clean import clean
from medjax.data.config import CleaningConfig
from medjax.data.tokenize import Encoder, load_tokenizer, load_vocabulary, tokenizer_hash
from tests.tokenizers import KINDS, small_tokenizer

TYPED = "Pt </s> said [SEP] and [CLS] <mask> then <extra_id_5>, <pad>x</s>y <unk> <s>[MASK]"


def test_t5_vocabulary(tokenizer_folders):
    v = load_vocabulary(tokenizer_folders["unigram"])
    assert (v.size, v.pad_id, v.separator_id, v.mask_id) == (700, 0, 1, None)
    assert v.sentinel_ids.tolist() == list(range(699, 599, -1))
    assert set(v.special_ids) == {0, 1, 2, *range(600, 700)}
    pieces = load_tokenizer(tokenizer_folders["unigram"]).convert_ids_to_tokens(range(700))
    assert v.continues_word.shape == (700,) and v.continues_word.dtype == np.bool_
    for i, piece in enumerate(pieces):
        expected = not piece.startswith("▁") and i not in v.special_ids
        assert v.continues_word[i] == expected, piece


def test_bert_vocabulary(tokenizer_folders):
    v = load_vocabulary(tokenizer_folders["wordpiece"])
    assert (v.size, v.pad_id, v.separator_id, v.mask_id) == (700, 0, 3, 4)
    assert v.sentinel_ids.size == 0 and v.special_ids.tolist() == [0, 1, 2, 3, 4]
    pieces = load_tokenizer(tokenizer_folders["wordpiece"]).convert_ids_to_tokens(range(700))
    assert v.continues_word.tolist() == [p.startswith("##") for p in pieces]
    assert v.continues_word.any()


def test_roberta_vocabulary(tokenizer_folders):
    v = load_vocabulary(tokenizer_folders["bpe"])
    assert (v.size, v.pad_id, v.separator_id, v.mask_id) == (700, 1, 2, 4)
    assert v.special_ids.tolist() == [0, 1, 2, 3, 4]
    pieces = load_tokenizer(tokenizer_folders["bpe"]).convert_ids_to_tokens(range(700))
    by_piece = dict(zip(pieces, v.continues_word.tolist(), strict=True))
    assert not by_piece["Ġ"] and not by_piece["Ċ"] and not by_piece["<mask>"]
    assert by_piece["a"] and not by_piece["Ġmg"]


def test_modernbert_like_vocabulary(tokenizer_folders, tmp_path):
    """A generic class, [CLS] and [SEP] around byte-level pieces, ids with a gap, a mask on top."""
    import tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    state = json.loads((tokenizer_folders["bpe"] / "tokenizer.json").read_text())
    backend = tokenizers.Tokenizer.from_str(json.dumps(state | {"added_tokens": []}))
    specials = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    backend.add_special_tokens(specials)
    ids = {token: backend.token_to_id(token) for token in specials}
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(t, ids[t]) for t in ("[CLS]", "[SEP]")]
    )
    names = ("unk_token", "cls_token", "sep_token", "pad_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=backend, **dict(zip(names, specials, strict=True))
    ).save_pretrained(tmp_path / "modern")
    v = load_vocabulary(tmp_path / "modern")
    assert (v.size, v.pad_id, v.separator_id, v.mask_id) == (705, 703, 702, 704)
    assert v.special_ids.tolist() == [700, 701, 702, 703, 704]
    ids = Encoder(tmp_path / "modern").encode(["no fever"])[0].ids
    assert ids[0] == 701 and ids[-1] == 702


def test_padding_and_truncation_of_a_folder_are_not_used(tokenizer_folders, tmp_path):
    """As sentence-transformers checkpoints have them in tokenizer.json."""
    import tokenizers

    folder = tmp_path / "padded"
    folder.mkdir()
    for file in tokenizer_folders["wordpiece"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_padding(length=16)
    backend.enable_truncation(16)
    backend.save(str(folder / "tokenizer.json"))
    assert load_vocabulary(folder).separator_id == 3
    encoder = Encoder(folder)
    assert [len(d.ids) for d in encoder.encode(["a", "a " * 50])] == [3, 52]
    assert tokenizer_hash(encoder.tokenizer) == tokenizer_hash(
        load_tokenizer(tokenizer_folders["wordpiece"])
    )


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_a_note_are_text(tokenizer_folders, kind):
    encoder = Encoder(tokenizer_folders[kind])
    plain, typed, empty = encoder.encode(["no fever", TYPED, ""])
    special = set(encoder.vocabulary.special_ids.tolist()) - {encoder.tokenizer.unk_token_id}
    ends = list(empty.ids)
    for document in (plain, typed):
        ids = document.ids.tolist()
        assert ids[-1] == encoder.vocabulary.separator_id
        assert [i for i in ids if i in special] == ends
    if kind != "wordpiece":  # BERT's brackets are pieces of their own, set apart by spaces
        text = encoder.tokenizer.decode(typed.ids[len(ends) - 1 : -1])
        assert text.replace("<unk>", "").split() == TYPED.replace("<unk>", "").split()


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_transformers(tokenizer_folders, notes, kind):
    encoder = Encoder(tokenizer_folders[kind])
    notes = [n for n in notes if "</s>" not in n]
    ours = encoder.encode(notes)
    theirs = encoder.tokenizer(notes).input_ids
    assert all(o.ids.tolist() == t for o, t in zip(ours, theirs, strict=True))
    with_offsets = encoder.encode(notes[:20], offsets=True)
    for document, expected in zip(with_offsets, ours, strict=False):
        np.testing.assert_array_equal(document.ids, expected.ids)
        assert document.offsets.shape == (len(document.ids), 2)
    assert encoder.encode([]) == []


def test_hash_follows_what_a_tokenizer_does_not_its_files(tokenizer_folders, tmp_path):
    hashes = {kind: tokenizer_hash(load_tokenizer(f)) for kind, f in tokenizer_folders.items()}
    assert len(set(hashes.values())) == 3
    copy = load_tokenizer(tokenizer_folders["wordpiece"])
    copy.model_max_length = 77
    copy.save_pretrained(tmp_path / "same")
    assert tokenizer_hash(load_tokenizer(tmp_path / "same")) == hashes["wordpiece"]
    copy.add_tokens(["[**Name**]"])
    copy.save_pretrained(tmp_path / "other")
    assert tokenizer_hash(load_tokenizer(tmp_path / "other")) != hashes["wordpiece"]


def test_folders_that_cannot_be_used_are_named(tokenizer_folders, tmp_path):
    with pytest.raises(UserError, match="no such tokenizer folder"):
        load_tokenizer(tmp_path / "t5-base")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: holds no tokenizer that transformers can load"):
        load_tokenizer(tmp_path / "empty")
    from transformers import PreTrainedTokenizerFast

    raw = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_folders["bpe"] / "tokenizer.json"))
    raw.save_pretrained(tmp_path / "nopad")
    with pytest.raises(UserError, match="nopad: the tokenizer has no padding token"):
        load_vocabulary(tmp_path / "nopad")
    raw.add_special_tokens({"pad_token": "<pad>"})
    raw.backend_tokenizer.post_processor = None
    raw.save_pretrained(tmp_path / "noend")
    with pytest.raises(UserError, match="noend: the tokenizer ends a text with no special token"):
        load_vocabulary(tmp_path / "noend")


def test_data_and_commands_import_no_jax():
    code = (
        "import sys, medjax.prepare, medjax.train_tokenizer, medjax.data.synthetic;"
        "import medjax.data.tokenize, medjax.data.batches, medjax.data.stream;"
        "heavy = {'jax', 'torch', 'transformers', 'pyarrow', 'datasets'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


ODD = (
    "Café ½ tablet ≥5 µg ﬁne １２ naïve 患者 \U0001f600 1⁰ ____ 111 (x)y.z I\u0307 \u0301lone"
    " e\u0301 nb\u00a0sp zw\u200bsp \u0600 12 ﾊﾞ ﾞ İstanbul STRASSE ẞ Ǆ \u0e33x ภาษาไทย"
    " \u1100\u1161 a\u0300 b"
)


@pytest.fixture(scope="module", params=["unigram", "nmt_nfkc", "wordpiece", "lowercase", "tagged"])
def any_tokenizer(request, notes, tmp_path_factory):
    """Folders of tokenizers that the fast ways take, tags of placeholders among their tokens."""
    options = {
        "unigram": {"kind": "unigram"},
        "nmt_nfkc": {"kind": "unigram", "normalization": "nmt_nfkc", "lowercase": True},
        "wordpiece": {"kind": "wordpiece"},
        "lowercase": {"kind": "wordpiece", "lowercase": True},
        "tagged": {"kind": "wordpiece", "cleaning": {"placeholders": "typed"}},
    }[request.param]
    folder = tmp_path_factory.mktemp("any")
    small_tokenizer(options.pop("kind"), notes, 700, **options).save_pretrained(folder)
    return folder


def test_a_corpus_gets_the_same_ids_in_the_fast_ways(any_tokenizer, notes):
    """Also tags, special tokens typed in a note, and characters from everywhere."""
    fast, plain = Encoder(any_tokenizer, for_corpus=True), Encoder(any_tokenizer)
    tagged = [note.replace(" the ", " [Name]the[LOC] ") for note in notes[:50]]
    texts = [*notes, *tagged, TYPED, ODD, "", "x", *ODD.split(), *(f"{w} {w}" for w in ODD.split())]
    for mixed in (texts, [a + b for a, b in zip(texts, reversed(texts), strict=True)]):
        for ours, expected in zip(fast.encode(mixed), plain.encode(mixed), strict=True):
            np.testing.assert_array_equal(ours.ids, expected.ids)
    assert fast._table is not None


@settings(max_examples=60)
@given(texts=st.lists(st.text(), max_size=4))
def test_any_text_gets_the_same_ids(any_tokenizer, texts):
    fast, plain = (_encoder(any_tokenizer, for_corpus) for for_corpus in (True, False))
    texts = [clean(text, CleaningConfig()) for text in texts]
    for ours, expected in zip(fast.encode(texts), plain.encode(texts), strict=True):
        np.testing.assert_array_equal(ours.ids, expected.ids)


@cache
def _encoder(folder, for_corpus):
    return Encoder(folder, for_corpus=for_corpus)
