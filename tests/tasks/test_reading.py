"""Tables, SQuAD files, relations: examples as they stand in the files, and what is wrong there."""

import json

import pytest

from medjax.config import UserError
from medjax.tasks.config import TaskConfig
from medjax.tasks.question_answering import MOVED
from medjax.tasks.read import read_task
from medjax.tasks.relations import UNMENTIONED
from medjax.tasks.splits import fraction


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def rows_of(count, start=0, **more):
    """Texts of two classes."""
    return [
        {"text": f"note {i} says {'yes' if i % 2 else 'no'}", "label": "ny"[i % 2], "id": f"x{i}"}
        | more
        for i in range(start, start + count)
    ]


def task(tmp_path, train, kind="classification", test=None, validation=None, **options):
    paths = {"train": write(tmp_path / "train.jsonl", train)}
    if test:
        paths["test"] = write(tmp_path / "test.jsonl", test)
    if validation:
        paths["validation"] = write(tmp_path / "validation.jsonl", validation)
    columns = {"id": "id"} | options.pop("columns", {})
    return read_task(TaskConfig(kind=kind, **paths, columns=columns, **options))


def test_classes_become_indices(tmp_path):
    data = task(tmp_path, rows_of(20), test=rows_of(4, 100), validation=rows_of(4, 200))
    assert data.labels == ("n", "y")
    assert [example.gold for example in data.splits["test"]] == [0, 1, 0, 1]
    assert data.splits["train"][3].id == "x3" and data.reports["train"].examples == 20


def test_splits_by_time_and_by_site(tmp_path):
    rows = [
        row
        | {
            "patient": f"p{i % 50}",
            "date": f"20{10 + i % 50 // 5}-03-0{1 + i % 9}",
            "site": "ABC"[i % 3],
        }
        for i, row in enumerate(rows_of(150))
    ]
    columns = {"group": "patient", "meta": ["date", "site"]}
    data = task(tmp_path, rows, columns=columns, split={"by": "time", "column": "date"})
    years = {n: {int(dict(e.meta)["date"][:4]) for e in own} for n, own in data.splits.items()}
    assert min(years["test"]) >= max(years["validation"]) >= max(years["train"]) > 2015
    columns = {"meta": ["site"]}
    split = {"by": "site", "column": "site", "test_sites": ["C"]}
    data = task(tmp_path, rows, columns=columns, split=split)
    assert {dict(e.meta)["site"] for e in data.splits["test"]} == {"C"}
    assert {dict(e.meta)["site"] for e in data.splits["train"]} == {"A", "B"}
    with pytest.raises(UserError, match="no example has one of them in site; there are A, B, C"):
        task(tmp_path, rows, columns=columns, split=split | {"test_sites": ["D"]})
    with pytest.raises(UserError, match="its site is no date"):
        task(tmp_path, rows, columns=columns, split={"by": "time", "column": "site"})


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t"), ("t.csv", ";")])
def test_tables_with_delimiters(tmp_path, name, delimiter):
    lines = [delimiter.join(("text", "label")), *(f"note {i}{delimiter}{i % 2}" for i in range(40))]
    (tmp_path / name).write_text("\n".join(lines))
    own = delimiter if delimiter == ";" else None
    data = read_task(TaskConfig(kind="classification", train=str(tmp_path / name), delimiter=own))
    assert sum(map(len, data.splits.values())) == 40 and data.labels == ("0", "1")


def test_a_template_makes_the_text_of_columns(tmp_path):
    columns = {"template": "age {age} says {text} ", "ending": ".", "id": "id"}
    data = task(tmp_path, rows_of(20, age=" 61 "), columns=columns)
    assert data.splits["train"][0].text == "age 61 says note 0 says no ."
    with pytest.raises(UserError, match="no column 'aged'.*did you mean 'age'"):
        task(tmp_path, rows_of(20, age="61"), columns={"template": "{aged} {text}"})


def test_numbers_and_their_texts_are_one_class(tmp_path):
    train = [row | {"label": i % 2} for i, row in enumerate(rows_of(20))]
    test = [row | {"label": f"{i % 2}.0"} for i, row in enumerate(rows_of(4, 100))]
    data = task(tmp_path, train, test=test)
    assert data.labels == ("0", "1") and data.splits["test"][1].gold == 1


def test_missing_splits_are_made_of_whole_groups(tmp_path):
    rows = [row | {"patient": f"p{i // 4}"} for i, row in enumerate(rows_of(200))]
    data = task(tmp_path, rows, columns={"group": "patient"})
    groups = [{e.group for e in examples} for examples in data.splits.values()]
    assert sum(map(len, groups)) == 50 and all(groups)
    again = task(tmp_path, rows, columns={"group": "patient"})
    assert again.splits == data.splits


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": "x3"}, "1 test examples with the id of one in train"),
        ({"text": " NOTE 3 says  yes"}, "1 test examples with the text of one in train"),
    ],
)
def test_leaks_are_refused_or_counted(tmp_path, change, problem):
    test = [*rows_of(4, 100), rows_of(1, 300)[0] | change]
    with pytest.raises(UserError, match=problem):
        task(tmp_path, rows_of(20), test=test, validation=rows_of(4, 200))
    options = {"test": test, "validation": rows_of(4, 200), "allow_leaks": True}
    assert len(task(tmp_path, rows_of(20), **options).splits["test"]) == 5


def test_rows_without_text_or_label_are_counted(tmp_path):
    bad = [{"text": " ", "label": "y"}, {"text": "a", "label": None}, {"text": 3, "label": "y"}]
    data = task(tmp_path, [*rows_of(40), *bad])
    assert data.reports["train"].excluded == {
        "empty text": 1,
        "no label": 1,
        "text is not a string": 1,
    }


@pytest.mark.parametrize(
    ("train", "test", "problem"),
    [
        (
            rows_of(20),
            rows_of(3, 90, label="z"),
            "test: 3 examples have the label 'z', which train",
        ),
        ([*rows_of(20), *rows_of(1, 50, label="q")], None, "class 'q' has one example in train"),
        (rows_of(20, label="y"), None, "there is one class in train"),
        ([{"text": " ", "label": "y", "id": 1}], None, r"no example in it \(1 empty text\)"),
    ],
)
def test_labels_that_cannot_be_learnt(tmp_path, train, test, problem):
    with pytest.raises(UserError, match=problem):
        task(tmp_path, train, test=test, split={"validation": 0.3, "test": 0.3})


def test_all_classes_may_be_listed(tmp_path):
    test, labels = rows_of(3, 90, label="z"), ["z", "y", "n"]
    data = task(tmp_path, rows_of(40), test=test, labels=labels)
    assert data.labels == ("z", "y", "n") and data.splits["test"][0].gold == 0


def test_several_classes_an_example(tmp_path):
    rows = [row | {"label": ["a", "b"][: i % 3]} for i, row in enumerate(rows_of(40))]
    data = task(tmp_path, rows, kind="multilabel")
    assert {example.gold for example in data.splits["train"]} == {(), (0,), (0, 1)}
    rows = [row | {"label": "a; b" if i % 2 else ""} for i, row in enumerate(rows_of(40))]
    data = task(tmp_path, rows, kind="multilabel", label_separator=";")
    assert {example.gold for example in data.splits["train"]} == {(), (0, 1)}


QUESTION = {"text": "Which drug?", "options": ["Metformin", "insulin  glargine", "none"]}


@pytest.mark.parametrize(
    ("label", "first", "letter"),
    [("b", 0, "B"), ("Insulin glargine", 0, "B"), (1, 0, "B"), (1, 1, "A"), ("3", 1, "C")],
)
def test_multiple_choice(tmp_path, label, first, letter):
    rows = [
        QUESTION | {"id": f"q{i}", "text": f"Case {i}: which?", "label": "A"} for i in range(20)
    ]
    test = [QUESTION | {"id": "own", "label": label}]
    test += [QUESTION | {"id": "bad", "label": "D"}, {"id": "one", "text": "x", "options": ["a"]}]
    columns = {"options": "options", "options_from": first}
    options = {"columns": columns, "labels": ["A", "B", "C"]}
    data = task(tmp_path, rows, test=test, **options)
    (own,) = data.splits["test"]
    assert own.text == "Which drug?\nA. Metformin\nB. insulin  glargine\nC. none"
    assert data.labels[own.gold] == letter
    excluded = {"label is none of the options": 1, "options: not 2 to 10 texts": 1}
    assert data.reports["test"].excluded == excluded


def test_options_in_columns_of_their_own(tmp_path):
    rows = [
        {"id": f"q{i}", "stem": f"Case {i}", "a": "yes", "b": "no", "c": None, "label": "ab"[i % 2]}
        for i in range(30)
    ]
    rows[0] |= {"c": "perhaps", "label": "c"}
    columns = {"text": "stem", "options": ["a", "b", "c"]}
    data = task(tmp_path, rows, columns=columns, labels=["A", "B", "C"])
    texts = {e.id: e.text for own in data.splits.values() for e in own}
    assert texts["q0"] == "Case 0\nA. yes\nB. no\nC. perhaps"
    assert texts["q1"] == "Case 1\nA. yes\nB. no"


def test_case_report_forms(tmp_path):
    def form(i):
        items = [
            {"item": "dyspnea", "options": ["yes", "no", "unknown"], "value": "ynu"[i % 3]},
            {"item": "fever", "options": ["yes", "no", "unknown"], "value": "unknown"},
        ]
        items[0]["value"] = {"y": "yes", "n": "no", "u": "unknown"}[items[0]["value"]]
        return {"id": f"n{i}", "text": f"note {i}", "patient": f"p{i // 2}", "items": items}

    forms = [form(i) for i in range(30)]
    wrong = form(31) | {"id": "w"}
    wrong["items"] = [{"item": "a", "options": ["x"], "value": "y"}, {"options": []}, {"item": "b"}]
    wrong["items"].append({"item": "c", "options": ["yes"], "value": None})
    options = {"format": "forms", "columns": {"group": "patient"}, "no_relation": "unknown"}
    data = task(tmp_path, [*forms, wrong], kind="relations", **options)
    assert data.labels == ("no", "unknown", "yes")
    examples = {e.id: e for own in data.splits.values() for e in own}
    assert len(examples) == 60
    own = examples["n4:dyspnea"]
    assert (own.text, own.text_pair) == ("note 4", "dyspnea (yes; no; unknown)")
    assert data.labels[own.gold] == "no" and own.group == "p2"
    assert set(data.reports["train"].excluded.values()) == {1}
    assert len(data.reports["train"].excluded) == 4


def test_fractions_are_nested_stratified_and_of_whole_groups(tmp_path):
    rows = [row | {"doc": f"d{i // 2}", "label": "ab"[i % 10 == 0]} for i, row in
            enumerate(rows_of(400))]  # fmt: skip
    examples = task(tmp_path, rows, columns={"group": "doc"}).splits["train"]
    kept = [set(fraction(examples, share, 0).nonzero()[0]) for share in (0.05, 0.1, 0.5, 1.0)]
    assert kept[0] < kept[1] < kept[2] < kept[3] and len(kept[3]) == len(examples)
    groups = [{examples[i].group for i in own} for own in kept]
    inside = [sum(e.group in own for e in examples) for own in groups]
    assert inside == [len(own) for own in kept]
    assert len(kept[2]) == pytest.approx(len(examples) / 2, rel=0.05)


def squad(questions, context="The patient has fever and cough."):
    return {"data": [{"title": "d", "paragraphs": [{"context": context, "qas": questions}]}]}


def read_squad(tmp_path, content):
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(content))
    paths = dict.fromkeys(("train", "validation", "test"), str(path))
    data = read_task(TaskConfig(kind="question_answering", **paths, allow_leaks=True))
    return data.splits["test"], data.reports["test"]


def test_squad_files(tmp_path):
    answers = [
        {"text": "fever", "answer_start": 16},
        {"text": "fever and cough", "answer_start": 16},
    ]
    questions = [
        {"id": "1", "question": "What?", "answers": answers},
        {"id": "2", "question": "Where?", "answers": [], "is_impossible": True},
        {"id": "3", "question": "Which?", "answers": [{"text": "cough", "answer_start": 29}]},
        {"id": "4", "question": " ", "answers": []},
    ]
    examples, report = read_squad(tmp_path, squad(questions))
    assert [len(example.gold) for example in examples] == [2, 0, 1]
    assert examples[2].gold[0].start == 26 and examples[0].group == "d"
    assert report.repaired == {MOVED: 1}
    assert report.excluded == {"empty context or question": 1}


@pytest.mark.parametrize(
    ("questions", "problem"),
    [
        (
            [{"id": "1", "question": "a", "answers": [{"text": "x9", "answer_start": 0}]}],
            "does not",
        ),
        ([{"id": "1", "question": "a"}, {"id": "1", "question": "b"}], "the id 1 occurs twice"),
        ([{"question": "a"}], "no SQuAD file"),
        ([{"id": "1"}], "no SQuAD file"),
    ],
)
def test_squad_files_that_cannot_be_used(tmp_path, questions, problem):
    with pytest.raises(UserError, match=problem):
        read_squad(tmp_path, squad(questions))


def test_relations_between_concepts_of_a_document(tmp_path):
    rows = ["7|t|Aspirin and gout.", "7|a|Aspirin again.", "7\t0\t7\tAspirin\tChemical\tC1"]
    rows += ["7\t12\t16\tgout\tDisease\tD1", "7\t18\t25\tAspirin\tChemical\tC1", "7\tCID\tC1\tD1"]
    rows += ["7\tCID\tC9\tD1", "7\t12\t16\tgout\tDisease\t-1", ""]
    (tmp_path / "a.txt").write_text("\n".join(rows))
    paths = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "a.txt"))
    config = TaskConfig(
        kind="relations",
        format="pubtator",
        pair_types=("Chemical", "Disease"),
        labels=["none", "related"],
        no_relation="none",
        allow_leaks=True,
        **paths,
    )
    data = read_task(config)
    first, missing = data.splits["test"]
    assert first.text == "<< Aspirin >> and [[ gout ]]. << Aspirin >> again." and first.gold == 1
    assert missing.id == "7:C9:D1" and missing.gold == 1
    assert data.reports["test"].repaired == {UNMENTIONED: 1}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"kind": "tagging", "format": "squad"}, "format squad is not for tagging"),
        ({"kind": "tagging", "cleaning": {}}, "cleaning would move the offsets"),
        ({"kind": "classification", "no_relation": "x"}, "no_relation is for relations"),
        ({"kind": "relations", "format": "pubtator"}, "need pair_types"),
        ({"kind": "tagging", "null_windows": 0.1}, "null_windows is for question_answering"),
        ({"kind": "classification", "stride": 255}, "leaves windows of max_length 256 no room"),
    ],
)
def test_configurations_that_contradict_themselves(options, problem):
    with pytest.raises(ValueError, match=problem):
        TaskConfig(train="x", **options)
