"""Traffic of compiled programs against counts by hand, and of train steps against their weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medjax.models.spec import count_params
from medjax.objectives.objective import loss_of_blocks
from medjax.pretrain import build
from medjax.training.compiled import Collective, read_traffic
from medjax.training.step import lower_train_step

ROWS, WIDTH, TURNS = 64, 256, 5


def mesh_of(*sizes):
    names = ("data", "fsdp")[: len(sizes)]
    devices = np.array(jax.devices()[: np.prod(sizes)]).reshape(sizes)
    return Mesh(devices, names, axis_types=(AxisType.Auto,) * len(sizes))


def traffic(function, mesh, *arguments):
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in arguments
    ]
    whole = NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        compiled = jax.jit(function, out_shardings=whole).lower(*shapes).compile()
    return read_traffic(compiled.as_text())


def test_collectives_count_as_often_as_their_loop_turns():
    """x W with W divided by rows: a sum over all devices in each turn."""
    mesh = mesh_of(8)

    def turns(x, w):
        def one(x, _):
            return jax.lax.with_sharding_constraint(x @ w, PartitionSpec(None, "data")), None

        return jax.lax.scan(one, x, None, length=TURNS)[0]

    rows = PartitionSpec("data", None)
    columns = PartitionSpec(None, "data")
    found = traffic(turns, mesh, ((ROWS, WIDTH), columns), ((WIDTH, WIDTH), rows))
    inside = {kind: sent[0] for kind, sent in found.by_kind(8).items()}
    whole = ROWS * WIDTH * 4
    reduced = inside.get("all-reduce", 0) / 2 + inside.get("reduce-scatter", 0)
    assert reduced == pytest.approx(TURNS * whole * 7 / 8)
    assert all(own.group == tuple(range(8)) for own in found.collectives)


def test_memory_is_what_products_read_and_write():
    mesh = mesh_of(1)
    found = traffic(lambda x, w: x @ w, mesh, *([((512, 512), PartitionSpec())] * 2))
    assert found.memory == pytest.approx(3 * 512 * 512 * 4, rel=0.01)
    assert found.collectives == ()


# What the TPU compiler makes of a scan that keeps its turns' products: 8 of 4 KB, updated in place
# beside a copy of the last one, and read again by a fusion within a fusion. Beside two of them 64
# bytes of two devices are gathered.
STACKED = """HloModule stacked

%read (whole: f32[8,32,32], turn: s32[]) -> f32[1,32,32] {
  %whole = f32[8,32,32]{2,1,0} parameter(0)
  %turn = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %part = f32[1,32,32]{2,1,0} dynamic-slice(%whole, %turn, %zero, %zero), dynamic_slice_sizes={1,32,32}
}

%outer (kept: f32[8,32,32], turn.1: s32[], own: f32[1,32,32], mine: f32[4,4]) -> (f32[8,32,32], f32[1,32,32], f32[4,4], f32[8,4]) {
  %kept = f32[8,32,32]{2,1,0} parameter(0)
  %turn.1 = s32[] parameter(1)
  %own = f32[1,32,32]{2,1,0} parameter(2)
  %mine = f32[4,4]{1,0} parameter(3)
  %zero.1 = s32[] constant(0)
  %before = f32[1,32,32]{2,1,0} fusion(%kept, %turn.1), kind=kLoop, calls=%read
  %sum = f32[1,32,32]{2,1,0} add(%before, %own)
  %updated = f32[8,32,32]{2,1,0} dynamic-update-slice(%kept, %sum, %turn.1, %zero.1, %zero.1)
  %ring = f32[8,4]{1,0} all-gather(%mine), channel_id=1, replica_groups={{0,1}}, dimensions={0}
  ROOT %all = (f32[8,32,32]{2,1,0}, f32[1,32,32]{2,1,0}, f32[4,4]{1,0}, f32[8,4]{1,0}) tuple(%updated, %sum, %mine, %ring)
}

ENTRY %main (a: f32[8,32,32], b: s32[], c: f32[1,32,32], d: f32[4,4]) -> (f32[8,32,32], f32[1,32,32], f32[4,4], f32[8,4]) {
  %a = f32[8,32,32]{2,1,0} parameter(0)
  %b = s32[] parameter(1)
  %c = f32[1,32,32]{2,1,0} parameter(2)
  %d = f32[4,4]{1,0} parameter(3)
  %room = f32[8,32,32]{2,1,0} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %found = (f32[8,32,32]{2,1,0}, f32[1,32,32]{2,1,0}, f32[4,4]{1,0}, f32[8,4]{1,0}) fusion(%a, %b, %c, %d), kind=kLoop, calls=%outer
}
"""  # noqa: E501


def test_what_is_updated_in_place_counts_as_its_update():
    """A part read and a part written of the stack, the other operand read, the copy written; what
    is handed on, or is room alone, is neither. (The turn's number is four bytes.)"""
    assert read_traffic(STACKED).memory == 4 * (4 * 32 * 32) + 4 + 4 * 8 * 4


def test_what_is_gathered_beside_two_products_is_gathered_once():
    head, read, outer, entry = STACKED.split("\n\n")
    last = entry.splitlines()[-2]
    first = last.replace("ROOT %found", "%first")
    both = entry.replace(last, f"{first}\n{last.replace('%outer', '%outer.2')}")
    again = "\n\n".join([head, read, outer, outer.replace("%outer", "%outer.2"), both])
    one, two = read_traffic(STACKED), read_traffic(again)
    assert two.memory - one.memory == 4 * (4 * 32 * 32) + 4
    assert one.collectives == two.collectives and len(one.collectives) == 1


def test_what_follows_a_kernel_of_several_lines_counts():
    """Kernels describe themselves on lines of their own, in the middle of a computation."""
    metadata = 'frontend_attributes={kernel_metadata={\n"metadata":"{block: 512}"\n}}, '
    kernel = STACKED.replace(", custom_call_target", f", {metadata}custom_call_target")
    assert kernel.count("\n") == STACKED.count("\n") + 2
    assert read_traffic(kernel) == read_traffic(STACKED)


def test_a_program_that_breaks_off_is_refused():
    cut = STACKED[: STACKED.index("  ROOT %found")] + "}\n"
    with pytest.raises(ValueError, match="not understood: no end of main"):
        read_traffic(cut)


@pytest.mark.parametrize(
    ("kind", "group", "inside", "outside"),
    [
        ("all-gather", range(8), 7 / 8, 0),
        ("all-reduce", range(8), 14 / 8, 0),
        ("all-reduce", (0, 8), 0, 1),
        ("all-reduce", range(16), 14 / 8, 2 / 8 / 2),
        ("reduce-scatter", (0, 1, 8, 9), 1 / 2, 1 / 4),
        ("collective-permute", (0, 1), 1, 0),
        ("collective-permute", (7, 8), 0, 1),
    ],
)
def test_what_a_ring_sends_within_and_between_slices(kind, group, inside, outside):
    found = Collective(kind, 1.0, 1000.0, tuple(group)).wire_bytes(per_slice=8)
    assert found == pytest.approx((1000 * inside, 1000 * outside))


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks of attention in 32 tokens, and products as on accelerators: older partitioners
    gather for what is laid out anew on CPU."""
    monkeypatch.setattr("medjax.models.attention.LOCAL_BLOCK", 8)
    monkeypatch.setattr("medjax.models.attention.BLOCK_SCORES", 8 * 32)
    monkeypatch.setattr("medjax.models.matmul._transposed", lambda x: x.T)


def sent(config):
    """What a train step sends, by kind of collective, and the bytes of its weights."""
    setup = build(config)
    with jax.set_mesh(setup.mesh):
        lowered = lower_train_step(
            loss_of_blocks(setup.objective),
            setup.objective.block_length,
            setup.optimizer,
            config.loop,
            setup.mesh,
            setup.specs,
        )
    found = read_traffic(lowered.compile().as_text()).by_kind(8)
    weights = 4 * count_params(setup.model.specs)
    return {kind: inside for kind, (inside, _) in found.items() if inside}, weights


MODERNBERT = {
    "model_type": "modernbert",
    "vocab_size": 600,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "global_attn_every_n_layers": 2,
    "local_attention": 8,
}
GEMMA = {
    "model_type": "gemma3_text",
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 8,
    "global_attn_every_n_layers": 2,
    "max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    ("family", "model", "implementation"),
    [
        ("t5", None, "xla"),
        pytest.param("bert", None, "blocks", marks=pytest.mark.long),
        ("bert", MODERNBERT, "blocks"),
        ("llama", GEMMA, "blocks"),
    ],
)
@pytest.mark.usefixtures("small_blocks")
def test_copies_of_a_model_exchange_their_gradients_alone(config_of, family, model, implementation):
    """Rows of the batch stay on their devices, whatever attention makes of them."""
    own = [] if model is None else [f"model={json.dumps(model)}"]
    options = ["loop.batch_size=64", "compute.unroll=1", f"compute.attention={implementation}"]
    found, weights = sent(config_of(family, *own, *options))
    assert set(found) == {"all-reduce"}
    # A ring sends everything 7/4 times, the table of a vocabulary for input and output; one state
    # of a layer would be more than what is left.
    assert found["all-reduce"] < 3.5 * weights


@pytest.mark.parametrize(("family", "model"), [("bert", None), ("bert", MODERNBERT)])
@pytest.mark.usefixtures("small_blocks")
def test_divided_weights_are_gathered_and_states_never_summed(config_of, family, model):
    """What a step with fsdp sends is a few times its weights, though its batch has more bytes."""
    own = [] if model is None else [f"model={json.dumps(model)}"]
    options = ["mesh.fsdp=8", "loop.batch_size=64", "compute.unroll=1", "compute.attention=blocks"]
    found, weights = sent(config_of(family, *own, *options))
    assert weights < sum(found.values()) < 4 * weights
