"""medjax: clinical language models in JAX. Commands are `python -m medjax.VERB`; in Python:

    model, params = medjax.load_pretrained("folder")   # a Hugging Face folder
    out = model.apply(params, {"input_ids": ids, "attention_mask": mask})   # out.hidden, out.logits
    medjax.save_pretrained("folder", model, params, tokenizer="folder")     # transformers reads it
    model = medjax.build_model(config, medjax.Compute(dtype="float32"))
    params = model.init(jax.random.key(0))

Names are imported when they are first used, so that `import medjax` does not import JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medjax.hub.folder import load_pretrained, save_pretrained
    from medjax.models.config import Compute
    from medjax.models.model import build_model

_MODULES = {
    "build_model": "medjax.models.model",
    "load_pretrained": "medjax.hub.folder",
    "save_pretrained": "medjax.hub.folder",
    "Compute": "medjax.models.config",
}
__all__ = ["Compute", "build_model", "load_pretrained", "save_pretrained"]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module 'medjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
