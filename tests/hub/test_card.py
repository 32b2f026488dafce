import pytest
from huggingface_hub import ModelCard

from medjax.config import UserError
from medjax.hub.card import model_card, read_sources

MIMIC = {
    "path": "/home/someone/mimic/NOTEEVENTS.csv.gz",
    "licence": "PhysioNet Credentialed Health Data License 1.5.0",
    "access": "credentialed",
    "documents": 2_083_180,
    "tokens": 500_000_000,
}
OPEN = {"name": "MTSamples", "licence": "CC0-1.0", "access": "open"}
FACTS = {
    "name": "clinical-t5-small",
    "licence": "apache-2.0",
    "languages": ["en"],
    "model": "T5 v1.1, 60M parameters",
    "objective": "span_corruption",
    "init_from": "/models/t5-v1_1-small",
    "base_model": "google/t5-v1_1-small",
    "sources": [OPEN],
    "training": {"optimizer": "adafactor", "learning rate": 0.01},
    "tokens_seen": 1_000_000,
    "flops": 3.2e17,
    "hours": 1.25,
    "hardware": "1 x NVIDIA H200",
    "validation": {"loss": 1.98, "nats_per_masked_byte": 0.71},
    "command": "python -m medjax.pretrain configs/pretrain/t5.yaml",
}


def test_front_matter_is_read_by_the_hub_library():
    data = ModelCard(model_card(FACTS)).data
    assert (data.license, data.language, data.base_model) == (
        "apache-2.0",
        ["en"],
        FACTS["base_model"],
    )
    assert (
        data.datasets == ["MTSamples"]
        and "clinical" in data.tags
        and data.library_name == "transformers"
    )
    assert ModelCard(model_card({"objective": "masked_lm"})).data.pipeline_tag == "fill-mask"


def test_every_fact_is_told():
    card = model_card(FACTS)
    for shown in (
        "1,000,000",
        "3.2e+17",
        "1.25",
        "NVIDIA H200",
        "adafactor",
        "1.98",
        "0.71",
        "CC0-1.0",
    ):
        assert shown in card
    assert (
        FACTS["command"] in card
        and "Not for care" in card
        and "openly available: MTSamples" in card
    )


def test_credentialed_notes_bind_the_weights():
    card = model_card(FACTS | {"sources": [OPEN, MIMIC]})
    assert "may be passed on under that data use agreement alone" in card
    assert MIMIC["licence"] in card and "openly available" not in card
    assert ModelCard(card).data.license == "other"


def test_notes_whose_access_is_not_stated_are_not_taken_as_open():
    card = model_card({"sources": [{"path": "/data/ward7/letters.csv"}]})
    assert "not declared open: letters.csv (no licence stated). Do not pass" in card


def test_paths_and_missing_facts_leave_no_trace():
    card = model_card({"init_from": "/scratch/me/checkpoints/bert", "sources": [MIMIC]})
    assert "/home" not in card and "/scratch" not in card and "None" not in card
    assert (
        "continued from bert" in card and "## Validation" not in card and "## Reproduce" not in card
    )


def test_a_card_tells_the_next_one_what_binds_it(tmp_path):
    assert read_sources(tmp_path) == []
    (tmp_path / "README.md").write_text(model_card({"sources": [MIMIC]}))
    inherited = read_sources(tmp_path)
    card = model_card(FACTS | {"sources": [OPEN, *inherited]})
    assert f"NOTEEVENTS.csv.gz ({MIMIC['licence']})" in card and "/home" not in card
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# BERT\n")
    assert read_sources(tmp_path) == []
    (tmp_path / "README.md").write_text("---\n{\n---\n")
    with pytest.raises(UserError, match="front matter is not valid YAML"):
        read_sources(tmp_path)
