"""Tokenizer files in a model folder: transformers loads them, and config.json agrees with them."""

import os

import pytest
from transformers import AutoConfig, AutoTokenizer

from medjax.config import UserError
from medjax.hub.folder import load_pretrained, save_pretrained
from medjax.hub.tokenizer import has_tokenizer, tokenizer_size, write_tokenizer
from tests.tokenizers import small_tokenizer

from .models import FLOAT32, tiny_model

NOTES = ["Pt is a 67 y/o M with HTN.", "No chest pain; BP 142/91.", "Metformin 500 mg PO BID."]
KINDS = {"t5": "unigram", "bert": "wordpiece", "roberta": "bpe", "modernbert": "bpe"}


@pytest.fixture(scope="module")
def tokenizers():
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    sizes = {"unigram": 150, "wordpiece": 90, "bpe": 290}
    return {kind: small_tokenizer(kind, NOTES, size) for kind, size in sizes.items()}


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_an_export_is_complete_for_transformers(tmp_path, tokenizers, name, kind):
    tokenizer = tokenizers[kind]
    save_pretrained(tmp_path / "old", *tiny_model(name))
    model, params = load_pretrained(tmp_path / "old", FLOAT32, vocab_size=len(tokenizer))
    save_pretrained(tmp_path / "object", model, params, tokenizer=tokenizer)
    save_pretrained(tmp_path / "folder", model, params, tokenizer=tmp_path / "object")
    for folder in (tmp_path / "object", tmp_path / "folder"):
        loaded, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
        assert loaded(NOTES)["input_ids"] == tokenizer(NOTES)["input_ids"]
        assert tokenizer_size(folder) == len(tokenizer) == config.vocab_size
        if name != "roberta":  # whose padding id places its positions
            assert config.pad_token_id == tokenizer.pad_token_id
    if name == "t5":
        assert config.eos_token_id == tokenizer.eos_token_id
        assert config.decoder_start_token_id == tokenizer.pad_token_id
    if name == "modernbert":
        assert (config.cls_token_id, config.sep_token_id) == (
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
        )


def test_an_object_of_the_tokenizers_library_is_written_too(tmp_path, tokenizers):
    write_tokenizer(tokenizers["wordpiece"].backend_tokenizer, tmp_path)
    assert tokenizer_size(tmp_path) == len(tokenizers["wordpiece"])


def test_sizes_of_older_files(tmp_path):
    assert tokenizer_size(tmp_path) is None and not has_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text('{"<s>": 0, "a": 6}')
    (tmp_path / "added_tokens.json").write_text('{"<new>": 9}')
    assert tokenizer_size(tmp_path) == 10
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "added_tokens.json").unlink()
    (tmp_path / "vocab.txt").write_text("[PAD]\n\u2028\na\u0085b\n", encoding="utf-8")
    assert tokenizer_size(tmp_path) == 3


def test_a_damaged_tokenizer_is_named(tmp_path):
    save_pretrained(tmp_path, *tiny_model())
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(UserError, match="tokenizer.json: cannot be read as a tokenizer"):
        load_pretrained(tmp_path)
