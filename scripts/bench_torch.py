"""The peer of bench.py: a training step, or generation, of transformers on torch.

Work comes in on stdin, JSON goes out.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch
import transformers

NAME = f"transformers {transformers.__version__} on torch {torch.__version__}"


def main() -> None:
    """Does the work on random batches and prints what it took."""
    work = json.load(sys.stdin)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = generate(work, device) if "new_tokens" in work else train(work, device)
    print(json.dumps({"name": NAME, **result}))


def train(work: dict, device: str) -> dict:
    """Median seconds of a training step."""
    model, batch = build(work, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    if device == "cuda":
        model = torch.compile(model)
    model.train()
    seconds = []
    for _ in range(work["steps"] + 2):
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=work["dtype"] == "bfloat16"):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        seconds.append(time.perf_counter() - start)
    return {"seconds_per_step": round(statistics.median(seconds[2:]), 4), "dtype": work["dtype"]}


def generate(work: dict, device: str) -> dict:
    """Best seconds of greedy generation, in the faster of float32 and bfloat16."""
    model, batch = build({**work, "targets": 1}, device)
    model.eval().generation_config.eos_token_id = None
    ids, found = batch["input_ids"], []
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype)
        for _ in range(work["steps"] + 1):
            start = time.perf_counter()
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=work["new_tokens"],
                do_sample=False,
                pad_token_id=0,
            )[0, -1].item()
            found.append((round(time.perf_counter() - start, 4), str(dtype).split(".")[1]))
    seconds, dtype = min(found)
    tokens = work["batch_size"] * work["new_tokens"]
    return {"seconds": seconds, "tokens_per_s": round(tokens / seconds, 1), "dtype": dtype}


def build(work: dict, device: str):
    """The model without dropout, and a batch of the same shapes as ours."""
    torch.manual_seed(0)
    size, shape = work["model"]["vocab_size"], (work["batch_size"], work["length"])
    batch = {"input_ids": torch.randint(200, 20_000, shape, device=device)}
    if work["model"]["model_type"] == "t5":
        names = {k: v for k, v in work["model"].items() if v is not None and k != "dropout_rate"}
        config = transformers.T5Config(**names, dropout_rate=0.0, decoder_start_token_id=0)
        model = transformers.T5ForConditionalGeneration(config)
        targets = (work["batch_size"], work["targets"])
        batch["labels"] = torch.randint(200, 20_000, targets, device=device)
    elif work["model"]["model_type"] == "llama":
        names = {k: v for k, v in work["model"].items() if v is not None}
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**names))
    else:
        off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = transformers.BertForMaskedLM(transformers.BertConfig(**(work["model"] | off)))
        chosen = torch.rand(shape, device=device).argsort(1) < work["predictions"]
        labels = torch.randint(0, size, shape, device=device)
        batch["labels"] = torch.where(chosen, labels, -100)
    return model.to(device), batch


if __name__ == "__main__":
    main()
