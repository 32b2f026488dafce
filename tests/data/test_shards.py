"""Shards: what is written is read back, across files; damage is named."""

import json

import numpy as np
import pytest

from medjax.config import UserError
from medjax.data.manifest import read_manifest
from medjax.data.shards import open_split, token_dtype, verify_split


def test_notes_come_back_and_shards_stay_below_their_size(make_folder):
    lengths = [30, 60, 20, 250, 1, 99, 100, 5]
    folder = make_folder(lengths, shard_tokens=100)
    split = open_split(folder, "train")
    assert [s.tokens for s in split.info.shards] == [90, 20, 250, 100, 100, 5]
    assert split.info.tokens == sum(lengths) and split.info.documents == len(lengths)
    assert split.info.characters == sum(lengths) and split.info.bytes == 2 * sum(lengths)
    starts = np.cumsum([0, *lengths])
    for i, length in enumerate(lengths):
        np.testing.assert_array_equal(split.document(i), starts[i] + np.arange(length))
    with pytest.raises(IndexError):
        split.document(len(lengths))


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_rows_cross_shards(make_folder, dtype):
    split = open_split(make_folder([30, 60, 20, 250, 1, 99], dtype=dtype), "validation")
    starts = np.array([0, 85, 89, 100, 330, 260])
    rows = split.read(starts, 130)
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(rows, starts[:, None] + np.arange(130))
    np.testing.assert_array_equal(split.read(starts, 130, "words"), rows % 3)


def test_a_stored_token_holds_every_id():
    assert token_dtype(65_536) == "uint16" and token_dtype(65_537) == "uint32"


def test_truncated_missing_and_flipped_files_are_named(make_folder):
    folder = make_folder([50, 60])
    file = folder / "train" / "00001.tokens"
    whole = file.read_bytes()
    verify_split(folder, "train")
    file.write_bytes(whole[:7] + bytes([whole[7] ^ 1]) + whole[8:])
    with pytest.raises(UserError, match=r"00001\.tokens: SHA-256 is"):
        verify_split(folder, "train")
    file.write_bytes(whole[:-2])
    with pytest.raises(UserError, match=r"00001\.tokens: has 118 bytes, .* says 120"):
        open_split(folder, "train")
    file.unlink()
    with pytest.raises(UserError, match=r"00001\.tokens: is missing"):
        open_split(folder, "train")


def test_manifest_of_another_version_or_damaged_is_refused(make_folder, tmp_path):
    folder = make_folder([50])
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"version": 7}))
    with pytest.raises(UserError, match="layout version 7, but this medjax reads version 1"):
        read_manifest(folder)
    del content["splits"]["train"]["tokens"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"damaged at splits\.train\.tokens"):
        read_manifest(folder)
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_manifest(folder)
    with pytest.raises(UserError, match="not a prepared folder"):
        read_manifest(tmp_path / "nowhere")


def test_unknown_split_names_those_there_are(make_folder):
    with pytest.raises(UserError, match="no split 'test'; there are train, validation"):
        open_split(make_folder([50]), "test")
