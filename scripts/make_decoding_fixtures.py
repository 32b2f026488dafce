"""What transformers' `generate` writes with the tiny T5s and decoders of tests/fixtures.

    python scripts/make_decoding_fixtures.py   # needs torch; rewrites tests/fixtures/decoding.json

Each case has a model, settings and rows of its own. The end token is the one, of those that the
model writes often, with which rows end at the most different places.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
ROWS, LONGEST, NEW_TOKENS = 6, 14, 12
MODELS = ("t5_v1_0", "t5_v1_1", "t5_tied_unscaled")
DECODERS = ("llama", "llama_options", "mistral", "qwen3", "gemma3", "gemma3_options", "gpt2")
# beams, length penalty, early stopping
SETTINGS = (
    (1, 1.0, False),
    (2, 1.0, False),
    (2, 0.0, "never"),
    (2, 2.0, True),
    (3, 1.0, "never"),
    (3, -0.5, False),
    (3, 0.6, True),
    (4, 2.0, "never"),
    (4, 1.0, True),
    (4, 0.5, False),
    (5, 1.0, False),
    (5, 3.0, "never"),
    (5, -1.0, "never"),
    (5, 0.0, True),
)


def generate(
    tensors: dict, config: dict, settings: tuple, seed: int
) -> tuple[int, list[list[int]], list[list[int]]]:
    """(end token, rows, what a model writes for them in float32: ids before the end token)."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    is_decoder = config["model_type"] != "t5"
    model = _load(tensors, config)
    numbers = np.random.default_rng(seed)
    lengths = numbers.integers(2, LONGEST + 1, ROWS)
    rows = [numbers.integers(4, config["vocab_size"], n).tolist() for n in lengths]
    beams, length_penalty, early_stopping = settings

    settings = {"max_new_tokens": NEW_TOKENS, "num_beams": beams, "do_sample": False}
    settings |= {"pad_token_id": 0}
    if beams > 1:
        settings |= {"length_penalty": length_penalty, "early_stopping": early_stopping}

    def run(end):
        if is_decoder:  # one by one: padding would go to the left of the prompts
            written = [
                model.generate(input_ids=torch.tensor([row]), eos_token_id=end, **settings)[0]
                for row in rows
            ]
            return [ids[len(row) :].tolist() for ids, row in zip(written, rows, strict=True)]
        ids = torch.tensor([row + [0] * (LONGEST - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (LONGEST - len(row)) for row in rows])
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            use_cache=False,  # with it, decoders with more layers than the encoder fail
            decoder_start_token_id=0,
            eos_token_id=end,
            **settings,
        )
        return written[:, 1:].tolist()

    common = [token for token, _ in Counter(sum(run(None), [])).most_common(3 if is_decoder else 8)]
    written = {end: [_until(row, end) for row in run(end)] for end in common}
    end = max(common, key=lambda end: len({len(row) for row in written[end]}))
    return end, rows, written[end]


def _load(tensors: dict, config: dict) -> Any:
    """The torch model with these weights."""
    import torch
    import transformers

    kind = config["model_type"]
    configuration = transformers.AutoConfig.for_model(**config)
    is_t5 = kind == "t5"
    auto = transformers.AutoModelForSeq2SeqLM if is_t5 else transformers.AutoModelForCausalLM
    model = auto.from_config(configuration, attn_implementation="eager").eval()
    weights = {k: torch.from_numpy(np.asarray(v, np.float32)) for k, v in tensors.items()}
    if "lm_head.weight" in weights:  # a table of its own even if the config would tie it
        model.lm_head.weight = torch.nn.Parameter(weights["lm_head.weight"])
    model.load_state_dict(weights, strict=False)
    return model


def _until(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row


def main() -> None:
    """Rewrites the fixture."""
    import torch
    from safetensors import safe_open

    torch.set_num_threads(1)  # so small are the models
    cases = []
    chosen = [
        (MODELS[(seed + seed // len(SETTINGS)) % len(MODELS)], settings)
        for seed, settings in enumerate(SETTINGS * 2)
    ]
    chosen += [(name, settings) for name in DECODERS for settings in SETTINGS[:9:4]]
    for seed, (name, settings) in enumerate(chosen):
        with safe_open(FIXTURES / f"{name}.safetensors", "np") as file:
            config = json.loads(file.metadata()["config"])
            tensors = {k[7:]: file.get_tensor(k) for k in file.keys() if k.startswith("weight.")}  # noqa: SIM118
        end, rows, written = generate(tensors, config, settings, seed)
        lengths = [len(ids) for ids in written]
        print(f"{name} {settings}: lengths {lengths}")
        cases.append(
            {"model": name, "settings": settings, "end": end, "rows": rows, "written": written}
        )
    text = ",\n".join(json.dumps(case) for case in cases)
    (FIXTURES / "decoding.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
