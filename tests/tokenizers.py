"""Small tokenizers of every kind, learnt from any words at all."""

from collections import Counter

from medjax.data.config import TokenizerConfig
from medjax.data.trainers import train

KINDS = ("unigram", "wordpiece", "bpe")


def small_tokenizer(kind, texts, size, **options):
    """A transformers tokenizer with so many pieces of these texts."""
    texts = list(texts)
    unused = {"sources": [{"path": "none"}], "output": "none"}
    values = unused | {"kind": kind, "vocab_size": 300} | options
    config = TokenizerConfig(**values).model_copy(update={"vocab_size": size})
    return train(texts, Counter("".join(texts)), config)
