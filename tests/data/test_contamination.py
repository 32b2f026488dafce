"""Evaluation examples are found in notes whatever stands between their words, and counted."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.config import UserError
from medjax.data.config import EvaluationConfig
from medjax.data.contamination import load_contamination
from medjax.data.word_hashes import bare_words

LONG = "the patient was seen in clinic today for follow up of her chronic heart failure and gout"
SHORT = "no acute distress was noted"
TINY = "denies chest pain"


def evaluation(folder, rows, name="set", **options):
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    fields = list(rows[0])
    return EvaluationConfig(**{"name": name, "path": str(path), "fields": fields} | options)


def check(configs, notes, by_id=()):
    found = load_contamination(configs)
    hits = found.check(notes)
    return found.to_remove(hits).tolist(), found.report(hits, by_id)


def test_long_short_and_tiny_examples(tmp_path):
    config = evaluation(tmp_path, [{"text": t} for t in (LONG, SHORT, TINY)], remove=True)
    part = " ".join(LONG.split()[2:15])
    twelve = " ".join(LONG.split()[2:14])
    notes = [
        f"History. {part}. Nothing else",
        f"History. {twelve}. Nothing else",
        f"HISTORY: The {SHORT.upper()}!",
        f"{SHORT.rsplit(' ', 1)[0]} elsewhere, {TINY}",
    ]
    removed, (info,) = check([config], notes)
    assert removed == [0, 2] and info.notes_removed == 2 and info.removed == "by text"
    assert info.fields["text"].model_dump() == {
        "examples": 3,
        "checkable": 2,
        "contaminated": 2,
        "notes": 2,
    }


@pytest.mark.parametrize(
    "note",
    [
        "No acute, distress\n was  noted.",
        "No [**Known lastname 123**] acute ___ distress [Name] was 12/3 noted",
        "NO ACUTE DISTRESS; was (noted)",
        "x no acute 55 distress was noted_____",
    ],
)
def test_case_punctuation_digits_and_placeholders_do_not_hide_it(tmp_path, note):
    removed, _ = check([evaluation(tmp_path, [{"t": SHORT}], remove=True)], ["other", note])
    assert removed == [1]


def test_fields_and_sets_are_counted_apart(tmp_path):
    rows = [{"question": SHORT, "context": LONG}, {"question": LONG, "context": TINY * 3}]
    first = evaluation(tmp_path, rows, "a")
    second = evaluation(tmp_path, [{"text": SHORT}], "b", remove=True)
    removed, infos = check([first, second], [LONG, SHORT, f"{LONG} {SHORT}"], by_id=["a", "b"])
    assert removed == [1, 2]
    assert [i.removed for i in infos] == ["by id", "by id and text"]
    question, context = (infos[0].fields[f] for f in ("question", "context"))
    assert (question.examples, question.contaminated, question.notes) == (2, 2, 3)
    assert (context.checkable, context.contaminated, context.notes) == (2, 1, 2)
    assert check([first], ["nothing"])[1][0].removed == "not removed"


WORDS = st.lists(st.sampled_from("abcde"), max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=6), st.lists(WORDS, max_size=6))
def test_equals_a_plain_search(tmp_path_factory, examples, notes):
    """Against words joined by spaces and looked for as text."""
    examples = [["q"] * 5, *examples]
    texts = list(dict.fromkeys(" ".join(words) for words in examples if words))
    config = evaluation(tmp_path_factory.mktemp("e"), [{"text": text} for text in texts])
    notes = [" ".join(words) for words in notes]
    hits = load_contamination([config]).check(notes)

    def stands_in(words, note):
        n = min(len(words), 13)
        grams = [f" {' '.join(words[i : i + n])} " for i in range(len(words) - n + 1)]
        return len(words) >= 5 and any(gram in f" {note} " for gram in grams)

    pairs = [(i, e) for i in range(len(notes)) for e in range(len(texts))]
    expected = [[i, e] for i, e in pairs if stands_in(texts[e].split(), notes[i])]
    assert hits.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=5))
def test_words_are_runs_of_letters(texts):
    import unicodedata

    words = bare_words(texts)
    for i, text in enumerate(texts):
        plain = unicodedata.normalize("NFKC", text)
        if re.search(r"_{3,}|\[", plain) or not plain.isascii():
            continue
        assert words.counts[i] == len(re.findall("[a-z]+", plain.lower()))
    assert len(words.hashes) == words.counts.sum() == len(words.texts)
    assert np.all(np.diff(words.texts) >= 0)


def test_json_and_xml_at_any_depth(tmp_path):
    squad = {"data": [{"paragraphs": [{"context": LONG, "qas": [{"question": SHORT}]}]}]}
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    pubmed = {"1": {"CONTEXTS": [LONG, SHORT], "QUESTION": "x"}}
    (tmp_path / "pubmed.json").write_text(json.dumps(pubmed))
    (tmp_path / "rqe.xml").write_text(
        f"<a><pair><chq>{LONG} <b>more</b></chq><faq t='{SHORT}'/></pair></a>"
    )
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "1.txt").write_text(LONG)
    cases = {
        "squad.json": ["context", "question"],
        "pubmed.json": ["CONTEXTS"],
        "rqe.xml": ["chq", "t"],
        "texts": ["text"],
    }
    for name, fields in cases.items():
        config = EvaluationConfig(name="s", path=str(tmp_path / name), fields=fields, remove=True)
        removed, (info,) = check([config], [LONG, SHORT])
        found = sum(f.contaminated for f in info.fields.values())
        assert (removed, found) == (([0], 1) if name == "texts" else ([0, 1], 2)), name


def test_bad_input(tmp_path):
    def refused(match, name="bad.json", content="{", **options):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=match) as error:
            load_contamination(
                [
                    EvaluationConfig(
                        name="s", path=str(tmp_path / name), **{"fields": ["t"]} | options
                    )
                ]
            )
        assert "secret" not in str(error.value)

    refused("is no valid JSON", content='{"secret')
    refused("is no valid XML", name="bad.xml", content="<a>secret")
    refused("no 't' in it", content='{"u": "secret"}')
    refused("no column 't'", name="a.jsonl", content='{"u": "secret"}')
    refused("no text in t has 5 words", name="a.jsonl", content='{"t": "secret word"}')
    with pytest.raises(UserError, match="no such file or folder"):
        load_contamination([EvaluationConfig(name="s", path=str(tmp_path / "x.csv"), fields=["t"])])


def test_what_many_examples_share_is_no_evidence(tmp_path):
    """A template of 15 words in 12 examples: a note with it alone holds none of them."""
    template = " ".join(f"template{chr(97 + i)}" for i in range(15))
    own = [" ".join(f"w{chr(97 + i)}{chr(97 + k)}" for k in range(14)) for i in range(12)]
    rows = [{"t": f"{template} {text}"} for text in own] + [{"t": template}]
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    config = EvaluationConfig(name="s", path=str(path), fields=["t"], remove=True)
    found = load_contamination([config])
    hits = found.check([f"Before. {template} after.", f"And {own[3]} too."])
    assert hits.tolist() == [[1, 3]]
    (info,) = found.report(hits, [])
    assert (info.fields["t"].examples, info.fields["t"].checkable) == (13, 12)
