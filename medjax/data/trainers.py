"""Trains the pieces of a tokenizer and puts them into the transformers class of its family.

The classes of transformers 5 rebuild their pipeline from the pieces and ignore what else stands in
tokenizer.json, so each kind is trained with exactly the pipeline of its class. The trainers of
`tokenizers` sum and number in the order of hash tables; where that shows, it is undone here, so
that the same notes give the same files.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Texts = Callable[[], Iterator[str]]
"""Starts a pass over the texts."""

BATCH = 1000
SENTINELS = 100
T5_SPECIAL = ("<pad>", "</s>", "<unk>")
T5_SPELLED = re.compile(r"<pad>|</s>|<unk>|<extra_id_\d+>")
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
MIN_FREQUENCY = 2
MAX_ALPHABET = 1000
"""WordPiece: rarer characters than these many become [UNK], as in BERT."""
SCORE_DIGITS = 6


def train_unigram(texts: Texts, vocab_size: int, lowercase: bool = False) -> Any:
    """T5: <pad> 0, </s> 1, <unk> 2, pieces by falling score, sentinels on top, 0 the highest."""
    from tokenizers.trainers import UnigramTrainer
    from transformers import T5TokenizerFast

    trainer = UnigramTrainer(
        vocab_size=vocab_size - SENTINELS,
        special_tokens=list(T5_SPECIAL),
        unk_token="<unk>",
        show_progress=False,
    )
    spelled_out = (T5_SPELLED.sub(" ", text) for text in texts())
    model = _train(T5TokenizerFast(), spelled_out, trainer)
    learnt = [(p, round(s, SCORE_DIGITS)) for p, s in model["vocab"] if p not in T5_SPECIAL]
    learnt = sorted(_order_rare_characters(learnt), key=lambda item: (-item[1], item[0]))
    sentinels = [(f"<extra_id_{n}>", 0.0) for n in reversed(range(SENTINELS))]
    pieces = [(p, 0.0) for p in T5_SPECIAL] + learnt + sentinels
    return T5TokenizerFast(vocab=pieces, extra_ids=SENTINELS)


def train_wordpiece(texts: Texts, vocab_size: int, lowercase: bool = False) -> Any:
    """BERT: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, characters, then pieces as learnt."""
    from tokenizers.trainers import WordPieceTrainer
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast(do_lower_case=lowercase)
    normalizer = tokenizer.backend_tokenizer.normalizer
    alphabet = _alphabet(normalizer.normalize_str(text) for text in texts())
    # Given as special tokens, characters have fixed ids, and equal pairs merge in a fixed order
    fixed = [*BERT_SPECIAL, *alphabet, *(f"##{c}" for c in alphabet if _continues(c))]
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=fixed,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    model = _train(tokenizer, texts(), trainer)
    return BertTokenizerFast(vocab=model["vocab"], do_lower_case=lowercase)


def train_bpe(texts: Texts, vocab_size: int, lowercase: bool = False) -> Any:
    """RoBERTa: <s> 0, <pad> 1, </s> 2, <unk> 3, <mask> 4, the 256 bytes, then merges as learnt."""
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import RobertaTokenizerFast

    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(ROBERTA_SPECIAL),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    model = _train(RobertaTokenizerFast(), texts(), trainer)
    merges = [tuple(merge) for merge in model["merges"]]
    return RobertaTokenizerFast(vocab=model["vocab"], merges=merges)


TRAINERS = {"unigram": train_unigram, "wordpiece": train_wordpiece, "bpe": train_bpe}


def _train(tokenizer: Any, texts: Iterable[str], trainer: Any) -> dict:
    """Trains a class's pipeline and returns the model part of its tokenizer.json."""
    backend = tokenizer.backend_tokenizer
    backend.train_from_iterator(_batches(texts), trainer=trainer)
    return json.loads(backend.to_str())["model"]


def _order_rare_characters(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Characters that were not learnt get scores below all others, in the order of a hash table.

    Here they get the same scores in the order of their codes.
    """
    lowest = min((score for piece, score in pieces if len(piece) > 1), default=0.0)
    rare = sorted(piece for piece, score in pieces if score < lowest)
    scores = sorted((score for _, score in pieces if score < lowest), reverse=True)
    return [p for p in pieces if p[1] >= lowest] + list(zip(rare, scores, strict=True))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _alphabet(texts: Iterable[str]) -> list[str]:
    """The most frequent characters, in order of their code."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return sorted(c for c, _ in frequent[:MAX_ALPHABET] if not c.isspace())


def _continues(character: str) -> bool:
    """Whether a word can go on with it: punctuation and ideographs stand alone in BERT."""
    is_ascii_symbol = character.isascii() and not character.isalnum()
    kind = unicodedata.category(character)
    return not is_ascii_symbol and kind[0] != "P" and kind != "Lo"
