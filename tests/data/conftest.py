"""Small prepared folders with known tokens, and small tokenizers of every kind."""

import os

import numpy as np
import pytest

from medjax.data.manifest import Manifest, write_manifest
from medjax.data.shards import SplitWriter, split_info
from medjax.data.synthetic import patient_notes
from tests.tokenizers import KINDS, small_tokenizer

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


@pytest.fixture(scope="session")
def notes():
    """Texts of 25 synthetic patients, and one with characters from everywhere."""
    texts = [note["text"] for i in range(25) for note in patient_notes(i, seed=0)]
    odd = "Café ½ tablet ≥ 5 µg, 患者 résumé \U0001f600 1⁰ naïve Pt </s>, <x>, [S]_"
    return [*texts, odd, odd]


@pytest.fixture(scope="session")
def tokenizer_folders(notes, tmp_path_factory):
    """Folder of a small tokenizer of each kind."""
    folders = {}
    for kind in KINDS:
        folders[kind] = tmp_path_factory.mktemp("tokenizers") / kind
        small_tokenizer(kind, notes, 700).save_pretrained(folders[kind])
    return folders


@pytest.fixture
def make_folder(tmp_path):
    """Writes a prepared folder whose stream of tokens is 0, 1, 2, ... in notes of given lengths."""

    def make(lengths, shard_tokens=100, splits=("train", "validation"), dtype="uint16", name="out"):
        folder = tmp_path / name
        folder.mkdir()
        stream = np.arange(sum(lengths), dtype=np.int32)
        notes = np.split(stream, np.cumsum(lengths)[:-1])
        infos = {}
        for split in splits:
            words = split == "validation"
            writer = SplitWriter(folder, split, dtype, words=words, shard_tokens=shard_tokens)
            texts = ["é" * len(n) for n in notes]
            writer.add(notes, texts, [(n % 3).astype(np.uint16) for n in notes] if words else None)
            infos[split] = split_info([writer], patients=2)
        tokenizer = {"sha256": "0" * 64, "vocab_size": 1000, "separator_id": 1, "pad_id": 0}
        manifest = Manifest(
            version=1, seed=0, tokenizer=tokenizer, splits=infos, drops={}, sources=[], config={}
        )
        write_manifest(manifest, folder)
        return folder

    return make
