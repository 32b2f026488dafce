"""What is generated equals what transformers' `generate` writes, token for token."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from medjax.config import UserError
from medjax.decoding.automaton import build_automaton
from medjax.decoding.config import DecodingConfig
from medjax.decoding.generate import build_generate, generate, prepared_params
from medjax.decoding.likelihood import build_likelihood
from medjax.decoding.sample import _nucleus
from medjax.hub.config import from_hf
from medjax.hub.names import from_hf_tensors, stored_parts, stored_tying
from medjax.models import build_model
from medjax.models.config import Compute
from medjax.training.config import MeshConfig
from medjax.training.mesh import make_mesh, shardings
from tests.models.tiny import CONFIGS

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CASES = json.loads((FIXTURES / "decoding.json").read_text(encoding="utf-8"))
NEW_TOKENS = 12


@functools.cache
def load(name):
    with safe_open(FIXTURES / f"{name}.safetensors", "np") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {k[7:]: file.get_tensor(k) for k in file.keys() if k.startswith("weight.")}  # noqa: SIM118
    return build(tensors, config)


def build(tensors, config):
    config = stored_tying(from_hf(config), tensors.get, tensors)
    parts = stored_parts(config, tensors)
    params, _, _ = from_hf_tensors(tensors.get, tensors, config, parts)
    return build_model(config, Compute(dtype="float32", unroll=1), parts), params


def write(model, params, case, **options):
    beams, length_penalty, early_stopping = case["settings"]
    start = 0 if model.config.model_type == "t5" else None
    config = DecodingConfig(
        max_new_tokens=NEW_TOKENS,
        num_beams=beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        batch_size=len(case["rows"]),
    )
    written = generate(
        model, params, case["rows"], config, [case["end"]], start_id=start, **options
    )
    return [ids.tolist() for ids in written]


def name_of(case):
    return "-".join([case["model"], *map(str, case["settings"])])


def cases():
    """Behind `--long`: the second rows of a T5's setting, and a decoder's second kind of beams."""
    settings = []
    for case in CASES:
        own = (case["model"], *case["settings"])
        again = own in settings or (not own[0].startswith("t5") and own[1] == 4)
        settings.append(own)
        yield pytest.param(case, id=name_of(case), marks=[pytest.mark.long] if again else [])


@pytest.mark.parametrize("case", list(cases()))
def test_equals_transformers(case):
    assert write(*load(case["model"]), case) == case["written"]


@pytest.mark.parametrize("beams", [1, 3])
def test_sharded_equals_unsharded(beams):
    """Rows over four devices, weights over two, and a last batch that is not full."""
    case = next(c for c in CASES if c["model"] == "t5_v1_1" and c["settings"][0] == 3)
    case = case | {"settings": (beams, 1.0, False), "rows": case["rows"] * 2}
    model, params = load("t5_v1_1")
    mesh = make_mesh(MeshConfig(data=4, fsdp=2), 0)
    placed = jax.device_put(params, shardings(model.specs, mesh))
    assert write(model, placed, case, mesh=mesh) == write(model, params, case)


def test_few_programs_and_the_order_of_the_rows(monkeypatch):
    """One program a shape, however many batches; a row's result does not depend on the others."""
    model, params = load("t5_v1_1")
    starts = []

    def start(*arguments):
        starts.append(arguments[1]["input_ids"].shape)
        return model.steps.start(*arguments)

    counted = model._replace(steps=model.steps._replace(start=start))
    numbers = np.random.default_rng(0)
    rows = [numbers.integers(4, 99, n) for n in (3, 17, 5, 16, 2, 30, 7, 8, 1, 29, 4)]
    config = DecodingConfig(max_new_tokens=6, batch_size=4)
    generate_rows = build_generate(counted, config, [98], start_id=0)
    written = generate_rows(params, rows)
    assert len(starts) <= 3 and len(starts) == len(set(starts))
    assert len({tuple(ids) for ids in written}) > 3
    one_by_one = build_generate(model, config, [98], start_id=0)
    for row, ids in list(zip(rows, written, strict=True))[:2]:
        np.testing.assert_array_equal(one_by_one(params, [row])[0], ids)
    generate_rows(params, rows)
    assert len(starts) <= 3
    assert generate_rows(params, []) == []


def test_the_loop_ends_when_all_rows_are_done():
    """Empty rows, which fill up a batch, hold up nobody: counted in steps."""
    model, params = load("t5_v1_1")
    steps = []

    def step(*arguments):
        jax.debug.callback(lambda position: steps.append(int(position)), arguments[3])
        return model.steps.step(*arguments)

    counted = model._replace(steps=model.steps._replace(step=step))
    row = CASES[1]["rows"][0]
    config = DecodingConfig(max_new_tokens=30, batch_size=4)
    first = int(generate(model, params, [row], config, [], start_id=0)[0][1])
    assert len(generate(counted, params, [row], config, [first], start_id=0)[0]) <= 1
    jax.effects_barrier()
    assert len(steps) <= 2


def test_a_model_without_decoder_is_refused():
    with pytest.raises(UserError, match="a bert model without decoder and LM head cannot generate"):
        build_generate(build_model(CONFIGS["bert"]), DecodingConfig(), [1])


@pytest.fixture(scope="module")
def decoder():
    """A tiny decoder, prompts of many lengths."""
    model, params = load("qwen3")
    numbers = np.random.default_rng(3)
    return model, params, [numbers.integers(4, 90, n).tolist() for n in (5, 9, 1, 17, 3, 12, 8)]


def test_a_beginning_that_rows_share_changes_nothing(decoder):
    model, params, rows = decoder
    prefix = np.random.default_rng(4).integers(4, 90, 11)
    config = DecodingConfig(max_new_tokens=10, batch_size=3)
    write_rows = build_generate(model, config, [2])
    apart = write_rows(params, rows, prefix=prefix)
    together = write_rows(params, [[*prefix, *row] for row in rows])
    assert [a.tolist() for a in apart] == [b.tolist() for b in together]
    without = write_rows(params, rows)
    assert [a.tolist() for a in apart] != [b.tolist() for b in without]


def test_what_is_drawn_follows_seed_and_row_alone(decoder):
    model, params, rows = decoder
    rows = [row for row in rows if len(row) < 16]  # one program each

    @functools.cache
    def writer(temperature=1.5, batch_size=4, **options):
        options |= {"temperature": temperature, "batch_size": batch_size}
        return build_generate(model, DecodingConfig(max_new_tokens=8, **options), [2])

    def written(rows=rows, **options):
        return [ids.tolist() for ids in writer(**options)(params, rows)]

    drawn = written()
    assert drawn == written(batch_size=2)
    assert drawn != written(seed=1)
    best = written(temperature=None)
    assert best == written(temperature=1.0, top_k=1)
    assert best == written(temperature=1.0, top_k=9, top_p=1e-6)
    assert len({tuple(ids) for ids in written(rows=[rows[0]] * 12)}) > 6


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_a_nucleus_is_the_smallest_that_holds_the_share(share):
    scores = np.random.default_rng(0).normal(0, 2, (5, 300)).astype(np.float32)
    thresholds = np.asarray(_nucleus(jnp.asarray(scores), share))
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    for row, threshold, own in zip(scores, thresholds, weights, strict=True):
        kept = own[row >= threshold].sum()
        assert kept >= share - 1e-4
        assert kept - own[row >= threshold].min() < share + 1e-4


@pytest.mark.parametrize("beams", [1, 3])
def test_constrained_outputs_are_allowed_ones(decoder, beams):
    """The best of what is allowed, by the probability of the whole where beams are kept."""
    model, params, rows = decoder
    tokens = [None] * 3 + [bytes([97 + i % 26]) for i in range(model.config.vocab_size - 3)]
    automaton = build_automaton("(ab|ba|c{2,4})", tokens, [2])
    config = DecodingConfig(max_new_tokens=6, num_beams=beams)
    for ids in generate(model, params, rows, config, [2], automaton=automaton):
        text = b"".join(tokens[i] for i in ids).decode()
        assert text in ("ab", "ba", "cc", "ccc", "cccc")


def test_prompts_that_do_not_fit_are_refused(decoder):
    model, params, rows = decoder
    config = DecodingConfig(max_new_tokens=30)
    with pytest.raises(UserError, match=f"max_position_embeddings, {model.config.max_length}"):
        generate(model, params, [[5] * model.config.max_length], config, [2])
    with pytest.raises(UserError, match="has no tokens"):
        generate(model, params, [[]], config, [2])
    tokens = [bytes([97 + i % 26]) for i in range(model.config.vocab_size)]
    automaton = build_automaton("a{40}", tokens, [2])
    with pytest.raises(UserError, match="takes 41 tokens or more, but max_new_tokens is 30"):
        build_generate(model, config, [2], automaton=automaton)


def test_a_decoder_over_a_mesh(decoder):
    model, params, rows = decoder
    mesh = make_mesh(MeshConfig(data=4, fsdp=2), 0)
    placed = jax.device_put(params, shardings(model.specs, mesh))
    prefix = np.arange(4, 10)
    config = DecodingConfig(max_new_tokens=6, batch_size=8)
    alone = build_generate(model, config, [2])(params, rows, prefix=prefix)
    with jax.set_mesh(mesh):
        placed = prepared_params(model, placed)  # once, as a model that is only asked
    divided = build_generate(model, config, [2], mesh=mesh)(placed, rows, prefix=prefix)
    assert [a.tolist() for a in alone] == [b.tolist() for b in divided]


@pytest.mark.parametrize("name", ["qwen3", pytest.param("t5_v1_1", marks=pytest.mark.long)])
def test_likelihood_is_that_of_the_full_forward(decoder, name):
    model, params = load(name)
    rows, is_t5 = decoder[2], name.startswith("t5")
    answers = [[7, 2], [7, 8, 2], [30, 2], [11, 12, 13, 2]]
    prefix = None if is_t5 else np.random.default_rng(4).integers(4, 90, 9)
    score = build_likelihood(
        model, DecodingConfig(batch_size=4), answers, start_id=0 if is_t5 else None
    )
    found = score(params, rows) if is_t5 else score(params, rows, prefix)
    run = jax.jit(model.apply)
    for row, own in zip(rows, found, strict=True):
        for answer, value in zip(answers, own, strict=True):
            ids = [0, *answer[:-1]] if is_t5 else [*prefix, *row, *answer[:-1]]
            rest = [0] * (32 - len(ids))  # one length for all; what follows is not seen
            filled = jnp.asarray([ids + rest], jnp.int32)
            batch = {"input_ids": filled}
            if is_t5:
                batch = {"input_ids": jnp.asarray([row]), "decoder_input_ids": filled}
            logits = run(params, batch).logits[0, len(ids) - len(answer) : len(ids)]
            chances = np.asarray(jax.nn.log_softmax(logits))
            want = sum(float(chances[i, token]) for i, token in enumerate(answer))
            assert value == pytest.approx(want, abs=1e-4)
