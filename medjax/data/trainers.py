"""Trains the pieces of a tokenizer and puts them into the transformers class of its family.

The classes of transformers 5 rebuild their pipeline from the pieces and ignore what else stands in
tokenizer.json, so each kind is trained with exactly the pipeline of its class. The trainers of
`tokenizers` sum and number in the order of hash tables; where that shows, it is undone here, so
that the same notes give the same files. What may be learnt from is decided in `frequent_words.py`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from medjax.data.config import TokenizerConfig
from medjax.data.placeholders import tags_of

BATCH = 1000
SENTINELS = 100
T5_SPECIAL = ("<pad>", "</s>", "<unk>")
T5_SPELLED = re.compile(r"<pad>|</s>|<unk>|<extra_id_\d+>")
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
MIN_FREQUENCY = 2
MAX_ALPHABET = 1000
"""Rarer characters than these many become unknown, as in BERT."""
SCORE_DIGITS = 6


def train(texts: Iterable[str], characters: Counter[str], config: TokenizerConfig) -> Any:
    """A transformers tokenizer of `config.kind` with `config.vocab_size` pieces, or what there is.

    Args:
      texts: one pass over what may be learnt from, without tags.
      characters: how often each occurs, also elsewhere: the pieces that need no evidence.
    """
    kinds = {"unigram": _train_unigram, "wordpiece": _train_wordpiece, "bpe": _train_bpe}
    return kinds[config.kind](texts, characters, config)


def _train_unigram(texts: Iterable[str], characters: Counter[str], config: TokenizerConfig) -> Any:
    """T5: <pad> 0, </s> 1, <unk> 2, tags, pieces by falling score, sentinels, 0 the highest."""
    from tokenizers import pre_tokenizers
    from tokenizers.trainers import UnigramTrainer
    from transformers import T5TokenizerFast

    options = {"_spm_precompiled_charsmap": _character_map(config), "extra_ids": SENTINELS}
    tokenizer = T5TokenizerFast(**options)
    backend = tokenizer.backend_tokenizer
    # Only for training: no piece learnt behind these crosses what they part, so that the class,
    # which has no such options, finds the same best path without them.
    steps = [backend.pre_tokenizer]
    if config.individual_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if config.split_punctuation:
        steps.append(pre_tokenizers.Punctuation("contiguous"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tags = tags_of(config.cleaning.placeholders)
    trainer = UnigramTrainer(
        vocab_size=config.vocab_size - SENTINELS - len(tags),
        special_tokens=list(T5_SPECIAL),
        unk_token="<unk>",
        initial_alphabet=_alphabet(characters, backend.normalizer),
        show_progress=False,
    )
    model = _learn(tokenizer, (T5_SPELLED.sub(" ", text) for text in texts), trainer)
    learnt = [(p, round(s, SCORE_DIGITS)) for p, s in model["vocab"] if p not in T5_SPECIAL]
    learnt = sorted(_order_rare_characters(learnt), key=lambda item: (-item[1], item[0]))
    sentinels = [f"<extra_id_{n}>" for n in reversed(range(SENTINELS))]
    fixed = [[(piece, 0.0) for piece in pieces] for pieces in (T5_SPECIAL, tags, sentinels)]
    return _with_tags(T5TokenizerFast([*fixed[0], *fixed[1], *learnt, *fixed[2]], **options), tags)


def _train_wordpiece(
    texts: Iterable[str], characters: Counter[str], config: TokenizerConfig
) -> Any:
    """BERT: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, tags, characters, pieces as learnt."""
    from tokenizers.trainers import WordPieceTrainer
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast(do_lower_case=config.lowercase)
    alphabet = _alphabet(characters, tokenizer.backend_tokenizer.normalizer)
    tags = tags_of(config.cleaning.placeholders)
    # Given as special tokens, characters have fixed ids, and equal pairs merge in a fixed order
    fixed = [*BERT_SPECIAL, *tags, *alphabet, *(f"##{c}" for c in alphabet if _continues(c))]
    trainer = WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=fixed,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    model = _learn(tokenizer, texts, trainer)
    return _with_tags(BertTokenizerFast(model["vocab"], do_lower_case=config.lowercase), tags)


def _train_bpe(texts: Iterable[str], characters: Counter[str], config: TokenizerConfig) -> Any:
    """RoBERTa: <s> 0, <pad> 1, </s> 2, <unk> 3, <mask> 4, tags, the 256 bytes, then merges."""
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import RobertaTokenizerFast

    tags = tags_of(config.cleaning.placeholders)
    trainer = BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*ROBERTA_SPECIAL, *tags],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    model = _learn(RobertaTokenizerFast(), texts, trainer)
    merges = [tuple(merge) for merge in model["merges"]]
    return _with_tags(RobertaTokenizerFast(vocab=model["vocab"], merges=merges), tags)


def _with_tags(tokenizer: Any, tags: tuple[str, ...]) -> Any:
    """Tags of placeholders, pieces already, are found whatever stands beside them."""
    from transformers import AddedToken

    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
    return tokenizer


def _character_map(config: TokenizerConfig) -> bytes | None:
    """SentencePiece's compiled rules: NMT's with NFKC; with case folding for lower-casing."""
    if config.normalization == "none":
        return None
    import sentencepiece
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    rules = config.normalization + ("_cf" if config.lowercase else "")
    model = sentencepiece.SentencePieceNormalizer(rule_name=rules).serialized_model_proto()
    return ModelProto.FromString(model).normalizer_spec.precompiled_charsmap


def _learn(tokenizer: Any, texts: Iterable[str], trainer: Any) -> dict:
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


def _alphabet(characters: Counter[str], normalizer: Any) -> list[str]:
    """The most frequent characters after normalisation, in order of their code."""
    counts: Counter[str] = Counter()
    for character, count in characters.items():
        for normal in normalizer.normalize_str(character) if normalizer else character:
            counts[normal] += count
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return sorted(c for c, _ in frequent[:MAX_ALPHABET] if not c.isspace())


def _continues(character: str) -> bool:
    """Whether a word can go on with it: punctuation and ideographs stand alone in BERT."""
    is_ascii_symbol = character.isascii() and not character.isalnum()
    kind = unicodedata.category(character)
    return not is_ascii_symbol and kind[0] != "P" and kind != "Lo"
