"""Configuration of training: optimizer, schedule, loop, mesh, checkpoints, evaluation. No JAX here.

The modules beside this one turn it into functions.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medjax.config import Schema
from medjax.models.config import DECODERS, LoraConfig

OPTIMIZER_FIELDS = {
    "adafactor": (
        "decay_rate",
        "clipping_threshold",
        "multiply_by_parameter_scale",
        "min_dim_size_to_factor",
    ),
    "adamw": ("b1", "b2", "eps", "weight_decay"),
    "adamw_rms": ("b1", "b2", "eps", "weight_decay"),
    "stable_adamw": ("b1", "b2", "eps", "weight_decay"),
    "muon": ("b1", "b2", "eps", "weight_decay", "momentum"),
}


class OptimizerConfig(Schema):
    """The rule that turns gradients into updates, and its constants."""

    name: Literal["adafactor", "adamw", "adamw_rms", "muon", "stable_adamw"] = "adamw"
    """adafactor (T5, Lehman et al.), adamw, adamw_rms (nanoT5), stable_adamw (ModernBERT), or muon
    (matrices of the layers; AdamW for embeddings, heads and vectors)."""
    clip_norm: float | None = Field(default=None, gt=0)
    """All: gradients are scaled down to this global norm; null: not clipped."""
    weight_decay: float = Field(default=0.0, ge=0)
    """All but adafactor: weights shrink by this times the learning rate; norms and biases do not.
    Composer's decoupled optimizers leave out the peak learning rate: divide their value by it."""
    b1: float = Field(default=0.9, ge=0, lt=1)
    """adamw, adamw_rms, stable_adamw, muon (its AdamW part): decay of the mean gradient."""
    b2: float = Field(default=0.999, ge=0, lt=1)
    """adamw, adamw_rms, stable_adamw, muon (its AdamW part): decay of the mean squared gradient."""
    eps: float = Field(default=1e-8, gt=0)
    """adamw, adamw_rms, stable_adamw, muon (its AdamW part): added to the root mean square."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """muon: decay of the (Nesterov) momentum of the matrices."""
    decay_rate: float = Field(default=0.8, gt=0)
    """adafactor: second moments decay by 1 - t^-decay_rate."""
    clipping_threshold: float | None = Field(default=1.0, ge=1)
    """adafactor: largest root mean square of a tensor's update (before its scale and
    the learning rate); null: not clipped."""
    multiply_by_parameter_scale: bool = True
    """adafactor: updates are relative to the root mean square of the tensor (at least 1e-3)."""
    min_dim_size_to_factor: int = Field(default=128, ge=1)
    """adafactor: matrices with fewer rows or columns keep a full second moment."""

    @model_validator(mode="after")
    def _only_fields_that_are_read(self):
        # Defaults pass: a saved configuration, which holds every field, must be a valid input.
        read = ("name", "clip_norm", *OPTIMIZER_FIELDS[self.name])
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name not in read and value != field.default:
                users = ", ".join(o for o, names in OPTIMIZER_FIELDS.items() if name in names)
                raise ValueError(
                    f"{name} = {value} is not read by optimizer {self.name}; "
                    f"remove it or choose one of: {users}"
                )
        return self


class ScheduleConfig(Schema):
    """The learning rate over a run: warm-up, a plateau, and a decay over the last steps."""

    kind: Literal["constant", "linear", "cosine", "one_minus_sqrt", "t5_rsqrt"] = "cosine"
    """Shape of the decay: none (constant), linear, cosine, one_minus_sqrt (ModernBERT), or
    t5_rsqrt: learning_rate / sqrt(max(step, warmup_steps)), which is flat during warm-up."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """The peak; for t5_rsqrt the factor before the root (1.0 in the T5 paper)."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up from 0; for t5_rsqrt the steps before the decay sets in."""
    decay_steps: int | None = Field(default=None, ge=1)
    """linear, cosine, one_minus_sqrt: length of the decay, which ends with the run; null: all steps
    after the warm-up."""
    final_ratio: float = Field(default=0.0, ge=0, lt=1)
    """linear, cosine, one_minus_sqrt: learning rate at the end as a part of the peak."""

    @model_validator(mode="after")
    def _only_fields_that_are_read(self):
        if self.kind in ("constant", "t5_rsqrt"):
            for name in ("decay_steps", "final_ratio"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} is not read by schedule {self.kind}; "
                        "remove it or choose linear, cosine or one_minus_sqrt"
                    )
        if self.kind == "t5_rsqrt" and self.warmup_steps < 1:
            raise ValueError(
                "schedule t5_rsqrt needs warmup_steps, the flat steps before the decay (T5: 10000)"
            )
        return self


class LoopConfig(Schema):
    """The training loop: how many steps of what batch, and what is said on the way."""

    steps: int = Field(gt=0)
    """Optimizer steps of the whole run."""
    batch_size: int = Field(gt=0)
    """Blocks a step over all devices; with the objective's block length it gives tokens a step."""
    accumulation: int = Field(1, ge=1)
    """Microbatches that a step is divided into, one after the other, to lower memory."""
    dropout: bool = True
    """Apply the model's dropout rates in training; they stay in the exported config either way."""
    dropout_rng: Literal["threefry2x32", "rbg"] = "threefry2x32"
    """Generator of dropout masks: rbg is faster on TPU, but masks then depend on the mesh."""
    deterministic: bool = False
    """On GPU: operations in a fixed order, bit for bit the same in each run, and slower."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Fixes initial weights, data order, corruption and dropout."""
    log_every: int = Field(100, ge=1)
    """Steps between log lines and lines of metrics.jsonl, whose figures are means over them."""
    profile_at: int | None = Field(None, ge=1)
    """Step from which a profile is taken into the run directory; none if left out."""
    profile_steps: int = Field(5, ge=1)
    """Steps that the profile covers."""


class MeshConfig(Schema):
    """Devices along each axis; their product is the number of devices."""

    data: int | None = Field(None, ge=1)
    """Copies of the model that share the batch; what the others leave if left out."""
    fsdp: int | None = Field(None, ge=1)
    """Devices that share the batch and divide each weight; chosen by size if left out."""
    tensor: int = Field(1, ge=1)
    """Devices that divide heads, feed-forward width and vocabulary."""


class CheckpointConfig(Schema):
    """When checkpoints are written and which are kept; the newest is always kept."""

    folder: str | None = None
    """Where they lie, in the place of the run directory's `checkpoints`; may be an address
    (gs://...), of which each process writes and reads its own part."""
    every: int = Field(1000, ge=1)
    """Steps between checkpoints; the last step always has one."""
    keep_last: int = Field(2, ge=1)
    """Newest checkpoints kept; one more than one protects against a damaged file."""
    keep_every: int | None = Field(None, ge=1)
    """Keep for good every checkpoint whose step is a multiple of this."""
    keep_best: int = Field(0, ge=0)
    """Checkpoints that were best on validation which are kept as well."""


class EvaluationConfig(Schema):
    """Validation on held-out patients."""

    data: str | None = None
    """Prepared folder whose held-out notes are used, of the same tokenizer; by default the first of
    data. Runs on different corpora can only be compared on the same notes."""
    every: int = Field(1000, ge=1)
    """Steps between evaluations; the last step always has one."""
    batches: int | None = Field(50, ge=1)
    """Batches of an evaluation, always the same ones; null takes the whole validation split."""
    patience: int | None = Field(None, ge=1)
    """Evaluations in a row without a better one after which the run ends; null: never."""


class LabelledConfig(Schema):
    """Training on labelled rows, in epochs."""

    epochs: int = Field(5, ge=0)
    """Passes over train, each followed by validation; 0 scores the model with an untrained head."""
    min_steps: int = Field(0, ge=0)
    """Least number of steps: where labels are too few for them, as at the low end of a learning
    curve, each of the epochs is several passes."""
    batch_size: int = Field(32, ge=1)
    """Rows a step."""
    accumulation: int = Field(1, ge=1)
    """Microbatches that a step is divided into, to lower memory."""
    learning_rate: list[float] | None = Field(None, min_length=1)
    """One, or several of which validation chooses; by default 5e-5 for encoders, 1e-4 for T5, 3e-4
    for a decoder's lora and 4e-5 for all of it."""
    schedule: Literal["linear", "cosine", "constant"] | None = None
    """After the warm-up; by default linear (to 0) for encoders, cosine (to 0) for decoders,
    constant for T5."""
    warmup: float | None = Field(None, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; by default 0.1, of T5 0."""
    optimizer: OptimizerConfig | None = None
    """Update rule; by default adamw with clip_norm 1 and weight_decay 0.01 for encoders, 0.001 for
    decoders; adafactor for T5."""
    dropout: bool = True
    """Apply the model's dropout rates."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """With a head: share of the gold class's probability that goes to all classes alike."""
    class_weights: Literal["balanced"] | list[float] | None = None
    """With a head: of classes in the loss: balanced (by inverse frequency in train), or one number
    each."""
    patience: int | None = Field(None, ge=1)
    """Epochs in a row without a better one after which training ends; null: never."""
    freeze: Literal["backbone"] | Annotated[int, Field(ge=1)] | None = None
    """What stays as it is: all but the head, or the embeddings and so many of the lower layers
    (of a T5 the encoder's)."""
    lora: LoraConfig | None = None
    """Trains low-rank pairs and the head in the place of all parameters."""

    @model_validator(mode="after")
    def _one_part(self):
        if self.freeze is not None and self.lora is not None:
            raise ValueError("freeze and lora exclude each other: lora freezes the backbone")
        return self

    def for_family(self, model_type: str) -> "LabelledConfig":
        """With the family's values in the place of what is left open: of Lehman et al. 2023, B, for
        encoders and T5, of the code of Ferrazzi (2026) for decoders.
        """
        given = {name: value for name, value in self if value is not None}
        own = _T5 if model_type == "t5" else _ENCODER
        if model_type in DECODERS:
            own = _DECODER | {"learning_rate": [3e-4 if self.lora else 4e-5]}
        if self.lora is not None:
            given["lora"] = self.lora.for_family(model_type)
        return type(self)(**(own | given))


_ENCODER = {
    "learning_rate": [5e-5],
    "schedule": "linear",
    "warmup": 0.1,
    "optimizer": OptimizerConfig(weight_decay=0.01, clip_norm=1.0),
}
_DECODER = {
    "schedule": "cosine",
    "warmup": 0.1,
    "optimizer": OptimizerConfig(weight_decay=1e-3, eps=1e-7, clip_norm=1.0),
}
_T5 = {
    "learning_rate": [1e-4],
    "schedule": "constant",
    "warmup": 0.0,
    "optimizer": OptimizerConfig(name="adafactor"),
}
