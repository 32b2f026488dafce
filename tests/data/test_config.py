"""The configurations that come with medjax, and the limits of their schemas."""

from pathlib import Path

import pytest

from medjax.config import UserError, load
from medjax.data.config import (
    CleaningConfig,
    PrepareConfig,
    SourceConfig,
    TokenizerConfig,
)

CONFIGS = Path(__file__).parents[2] / "configs"
WHOLE = [p for p in sorted(CONFIGS.glob("prepare/*.yaml")) if "sources" not in p.name]


@pytest.mark.parametrize("path", WHOLE, ids=lambda p: p.stem)
def test_prepare_configs(path):
    config = load(PrepareConfig, [path])
    assert all(source.licence for source in config.sources)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("tokenizer/*.yaml")), ids=lambda p: p.stem)
def test_tokenizer_configs(path):
    assert load(TokenizerConfig, [path]).vocab_size > 30_000


@pytest.mark.parametrize("schema", [SourceConfig, CleaningConfig, PrepareConfig, TokenizerConfig])
def test_schemas_stay_small_and_explained(schema):
    assert len(schema.model_fields) <= 18
    assert all(field.description for field in schema.model_fields.values())


def test_every_problem_of_a_config_is_named():
    overrides = ["validation_fraction=1.5", "sources=[]", "tokenizer=t", "outptu=x", "seed=-1"]
    with pytest.raises(UserError) as error:
        load(PrepareConfig, [], overrides)
    message = str(error.value)
    for part in ("validation_fraction = 1.5", "sources", "did you mean output?", "seed = -1"):
        assert part in message
    with pytest.raises(UserError, match="did you mean"):
        load(PrepareConfig, [], ["sources=[{path: a, patinet: x}]", "tokenizer=t", "output=o"])
