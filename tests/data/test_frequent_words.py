"""Words of enough patients, against a count in plain Python."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from medjax.data.frequent_words import WordCounter


@pytest.mark.parametrize("min_patients", [1, 3, 5])
def test_words_are_counted_over_patients(tmp_path, min_patients):
    """Over many batches, with a patient's notes scattered and words repeated within a note."""
    random = np.random.default_rng(0)
    counter = WordCounter(tmp_path, min_patients, total_bytes=10**9)  # several buckets
    patients, texts = defaultdict(set), []
    for _ in range(40):
        units = random.integers(0, 12, 20).astype(np.uint64)
        batch = []
        for unit in units:
            words = [f"w{int(random.pareto(0.5)) % 4000}" for _ in range(30)]
            for word in words:
                patients[word].add(int(unit))
            batch.append(
                " ".join(words[:9]) + "\n" + " ".join(words[9:20]) + "\n\n" + " ".join(words[20:])
            )
        counter.add(batch, units)
        texts += batch
    found = counter.finish()
    assert not any(tmp_path.iterdir())
    assert found.characters == Counter("".join(texts))
    frequent = {word for word, units in patients.items() if len(units) >= min_patients}
    assert min_patients == 1 or 10 < len(frequent) < len(patients) / 2
    for text, kept in zip(texts, found.keep(texts), strict=True):
        lines = [" ".join(w for w in line.split() if w in frequent) for line in text.split("\n")]
        assert [" ".join(line.split()) for line in kept.split("\n")] == lines
    assert min_patients > 1 or found.keep(texts) == texts
