"""Reference logits of transformers' task heads on torch, for tests/models/test_heads.py.

    python scripts/make_head_fixtures.py       # needs torch; rewrites tests/fixtures/heads/

Each file holds the weights of a tiny random model under transformers' names, inputs and logits.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from make_fixtures import (
    BATCH,
    BERT,
    BIASES,
    GEMMA3,
    GPT2,
    LENGTH,
    LLAMA,
    MEGATRON,
    MODERNBERT,
    ROBERTA,
)

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "heads"
FAMILIES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "megatron": MEGATRON,
    "modernbert": MODERNBERT,
    "modernbert_biases": MODERNBERT | BIASES | {"classifier_activation": "silu"},
    "llama": LLAMA | {"pad_token_id": 1},
    "qwen3": LLAMA | {"pad_token_id": 1, "model_type": "qwen3"},
    "gemma3": GEMMA3 | {"pad_token_id": 1},
    "gpt2": GPT2 | {"pad_token_id": 1},
}
USES = {
    "sequence": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "answer": "AutoModelForQuestionAnswering",
}
LABELS = 3


def main() -> None:
    """Writes every family with every head."""
    import torch
    import transformers
    from safetensors.numpy import save_file

    FOLDER.mkdir(exist_ok=True)
    for family, values in FAMILIES.items():
        for use, auto in USES.items():
            if family == "gemma3" and use != "sequence":
                continue  # transformers has no such class
            torch.manual_seed(0)
            labels = {} if use == "answer" else {"num_labels": LABELS}
            config = transformers.AutoConfig.for_model(**values, **labels)
            model = getattr(transformers, auto).from_config(config).eval()
            with torch.no_grad():
                for tensor in model.parameters():
                    tensor.copy_((torch.randn(tensor.shape) * 0.2).half().float())
            mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
            mask[1, LENGTH // 2 :] = 0
            ids = torch.randint(4, 99, (BATCH, LENGTH)) * mask + (1 - mask)
            with torch.no_grad():
                out = model(input_ids=ids, attention_mask=mask)
            if use == "answer":
                logits = torch.stack([out.start_logits, out.end_logits], -1)
            else:
                logits = out.logits
            arrays = {name: t.numpy().astype(np.float16) for name, t in model.state_dict().items()}
            arrays = {f"weights/{n}": a for n, a in arrays.items() if a.ndim or a.size}
            arrays |= {
                "input_ids": ids.numpy().astype(np.int32),
                "attention_mask": mask.numpy().astype(np.int32),
                "logits": logits.numpy().astype(np.float32),
            }
            config.architectures = [type(model).__name__]
            facts = {"config": json.dumps(config.to_dict()), "use": json.dumps(use)}
            save_file(arrays, FOLDER / f"{family}_{use}.safetensors", facts)


if __name__ == "__main__":
    main()
