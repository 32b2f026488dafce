"""Duplicates on the disk: equal to a plain comparison, whatever chunks and buckets they lie in."""

import numpy as np
import pytest

from medjax.data import buckets
from medjax.data.config import CleaningConfig
from medjax.data.dedup import EXACT, KEPT, NEAR, find_duplicates, rows_per_band, signatures
from medjax.data.sources import Note
from medjax.data.spool import Spool
from medjax.data.stream import Recipe, process

THRESHOLD = 0.8


def spooled(folder, texts, chunk=50):
    spool = Spool(folder / "spool")
    recipe = Recipe(CleaningConfig(collapse_spaces=False), THRESHOLD)
    notes = [(0, Note(text, str(i), None, "s")) for i, text in enumerate(texts)]
    for start in range(0, len(notes), chunk):
        parts = [notes[start : start + chunk // 2], notes[start + chunk // 2 : start + chunk]]
        spool.append([process(part, recipe) for part in parts if part])
    return spool


def shingles(text):
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def similarity(a, b):
    return len(a & b) / max(len(a | b), 1)


@pytest.fixture(scope="module")
def corpus():
    """60 notes of 150 words with copies in which some words are others, and exact ones."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(60):
        words = [f"w{n}" for n in rng.integers(0, 5000, 150)]
        texts.append(" ".join(words))
        for changes in (0, 1, 2, 3, 6, 10):
            copy = list(words)
            for place in rng.integers(0, 150, changes):
                copy[place] = "other"
            texts.append("  ".join(copy) if changes == 0 else " ".join(copy))
    return [texts[i] for i in rng.permutation(len(texts))]


@pytest.mark.parametrize("records", [2**22, 100])
def test_equals_a_plain_comparison(tmp_path, corpus, monkeypatch, records):
    """But for pairs so near the threshold that 128 permutations cannot tell."""
    monkeypatch.setattr(buckets, "BUCKET_RECORDS", records)
    found = find_duplicates(spooled(tmp_path, corpus), THRESHOLD)
    sets = [shingles(text) for text in corpus]
    seen = {}
    unsure = 0
    for i, text in enumerate(corpus):
        key = " ".join(text.split())
        assert (found[i] == EXACT) == (key in seen), i
        nearest = max((similarity(sets[i], sets[j]) for j in seen.values()), default=0.0)
        if found[i] != EXACT:
            if nearest > THRESHOLD + 0.1:
                assert found[i] == NEAR
            elif nearest < THRESHOLD - 0.1:
                assert found[i] == KEPT
            else:
                unsure += 1
        seen.setdefault(key, i)
    assert unsure < 0.3 * len(corpus) and set(found) == {KEPT, EXACT, NEAR}
    exact_alone = find_duplicates(Spool(tmp_path / "spool"), None)
    np.testing.assert_array_equal(exact_alone == EXACT, found == EXACT)
    assert not (exact_alone == NEAR).any()
    assert not list((tmp_path / "spool").glob("*.bucket"))


def test_signatures_estimate_the_similarity(corpus):
    found = signatures(corpus[:80], THRESHOLD)
    sets, errors = [shingles(text) for text in corpus], []
    for i in range(80):
        for j in range(i):
            estimate = (found.values[i] == found.values[j]).mean()
            errors.append(estimate - similarity(sets[i], sets[j]))
    assert np.abs(errors).max() < 0.2 and abs(np.mean(errors)) < 0.01


def test_signatures_do_not_depend_on_the_batch(corpus):
    whole, half = signatures(corpus[:20], 0.8), signatures(corpus[10:20], 0.8)
    np.testing.assert_array_equal(whole.values[10:], half.values)
    np.testing.assert_array_equal(whole.bands[10:], half.bands)


def test_short_notes_are_near_to_nothing(tmp_path):
    texts = ["a b c d", "a b c e", "A b c d", "a  b c d", "one two three four five"]
    found = find_duplicates(spooled(tmp_path, texts), THRESHOLD)
    assert found.tolist() == [KEPT, KEPT, KEPT, EXACT, KEPT]


@pytest.mark.parametrize(("threshold", "rows"), [(0.5, 2), (0.8, 8), (0.9, 8), (1.0, 32), (0.2, 2)])
def test_bands_find_pairs_at_the_threshold(threshold, rows):
    assert rows_per_band(threshold) == rows
    assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.9
