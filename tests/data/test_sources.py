"""Readers of every format; what cannot be read is named, never quoted."""

import gzip
import json
import tempfile
from pathlib import Path

import pytest

from medjax.config import UserError
from medjax.data.config import SourceConfig
from medjax.data.sources import Tally, check_sources, hash_files, read_notes

CANARY = "xylocanary"
ROWS = [
    ("n1", "7", 'First line,\nsecond "quoted" line; 5\'4" tall'),
    ("n2", "7", "Second note, é ½"),
    ("n3", "8", "Third\tnote"),
]


def read(path, **options):
    tally = Tally()
    options = {"id": "id", "patient": "patient"} | options
    with tempfile.TemporaryDirectory() as scratch:
        source = SourceConfig(path=str(path), **options)
        notes = list(read_notes(source, tally, Path(scratch)))
        assert not list(Path(scratch).iterdir())
    return notes, tally


def quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


def csv_text(delimiter=",", rows=ROWS):
    lines = [delimiter.join(["id", "patient", "text"])]
    lines += [delimiter.join([i, p, quoted(t)]) for i, p, t in rows]
    return "\r\n".join(lines) + "\r\n"


def compressed(data, name):
    if name.endswith(".gz"):
        return gzip.compress(data)
    if not name.endswith(".zst"):
        return data
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def write_csv(folder, name="notes.csv", delimiter=",", encoding="utf-8"):
    path = folder / name
    path.write_bytes(compressed(csv_text(delimiter).encode(encoding), name))
    return path


def write_xlsx(folder, name="notes.xlsx", rows=ROWS, sheet=None):
    import openpyxl

    book = openpyxl.Workbook()
    page = book.create_sheet(sheet) if sheet else book.active
    for row in [("id", "patient", "text"), *rows]:
        page.append([int(c) if isinstance(c, str) and c.isdigit() else c for c in row])
    book.save(folder / name)
    return folder / name


def write_jsonl(folder, name="notes.jsonl"):
    lines = [json.dumps({"id": i, "patient": int(p), "text": t}) for i, p, t in ROWS]
    path = folder / name
    path.write_bytes(compressed(("\n".join(lines) + "\n\n").encode(), name))
    return path


def write_parquet(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = zip(*ROWS, strict=True)
    table = pa.table(dict(zip(("id", "patient", "text"), map(list, columns), strict=True)))
    pq.write_table(table, folder / "notes.parquet", row_group_size=2)
    return folder / "notes.parquet"


def write_dataset(folder):
    import datasets

    rows = [{"id": i, "patient": p, "text": t, "other": 1} for i, p, t in ROWS]
    datasets.Dataset.from_list(rows).save_to_disk(folder / "saved")
    return folder / "saved"


WRITERS = {
    "csv": write_csv,
    "csv.gz": lambda folder: write_csv(folder, "notes.csv.gz"),
    "tsv": lambda folder: write_csv(folder, "notes.tsv", "\t"),
    "tsv.gz": lambda folder: write_csv(folder, "notes.tsv.gz", "\t"),
    "byte order mark": lambda folder: write_csv(folder, encoding="utf-8-sig"),
    "jsonl": write_jsonl,
    "jsonl.gz": lambda folder: write_jsonl(folder, "notes.jsonl.gz"),
    "csv.zst": lambda folder: write_csv(folder, "notes.csv.zst"),
    "jsonl.zst": lambda folder: write_jsonl(folder, "notes.jsonl.zst"),
    "utf-16": lambda folder: write_csv(folder, encoding="utf-16"),
    "xlsx": write_xlsx,
    "parquet": write_parquet,
    "datasets": write_dataset,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_notes(tmp_path, kind):
    path = WRITERS[kind](tmp_path)
    options = {"encoding": "utf-16"} if kind == "utf-16" else {}
    notes, tally = read(path, name="hospital", **options)
    assert [(n.id, n.patient, n.text) for n in notes] == ROWS
    assert {n.source for n in notes} == {"hospital"}
    assert tally.rows == 3 and not tally.drops
    source = SourceConfig(path=str(path), **options)
    assert tally.bytes_read == check_sources([source])
    assert all(len(digest) == 64 for digest in hash_files(source).values())


def test_text_folders(tmp_path):
    folder = tmp_path / "notes"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "2.txt").write_text("two")
    (folder / "a.txt").write_text("one\nline")
    (folder / "c.txt").write_text("")
    (folder / "d.txt.gz").write_bytes(gzip.compress(b"four"))
    (folder / "readme.md").write_text("no note")
    for options in ({}, {"format": "text"}):
        notes, tally = read(folder, id=None, patient=None, **options)
        found = {n.id: n.text for n in notes}
        assert found == {"a.txt": "one\nline", "b/2.txt": "two", "d.txt.gz": "four"}
        assert tally.drops == {"empty text": 1}
    notes, _ = read(folder / "a.txt", id=None, patient=None)
    assert notes[0].id == "a.txt" and notes[0].patient is None


def test_folders_of_json_documents(tmp_path):
    """E3C's layers: a file a document, at any depth."""
    for name, values in {
        "layer1/IT1.json": {"id": "IT1", "text": "Donna, 56 anni.", "licence": "CC-BY"},
        "layer3/IT2.json": {"id": "IT2", "text": "È dimesso.", "authors": []},
        "layer3/IT3.json": {"id": "IT3", "text": ""},
        "layer3/IT4.json": ["IT4"],
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    notes, tally = read(tmp_path, id="id", patient=None, format="json")
    assert {n.id: n.text for n in notes} == {"IT1": "Donna, 56 anni.", "IT2": "È dimesso."}
    assert tally.drops == {"empty text": 1, "not a JSON object": 1}
    notes, _ = read(tmp_path / "layer3", id=None, patient=None, format="json")
    assert [n.id for n in notes] == ["IT2.json"]
    with pytest.raises(UserError, match="no column 'testo'"):
        read(tmp_path, id="id", patient=None, format="json", text="testo")


def test_folders_and_patterns_are_read_in_order(tmp_path):
    for name in ("b", "a"):
        lines = [json.dumps({"text": f"{name}{i}"}) for i in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "notes.log").write_text("x")
    for path in (tmp_path, tmp_path / "*.jsonl"):
        notes, _ = read(path, id=None, patient=None)
        assert [n.text for n in notes] == ["a0", "a1", "b0", "b1"]
        assert [n.id for n in notes] == ["a.jsonl:1", "a.jsonl:2", "b.jsonl:1", "b.jsonl:2"]


def test_other_delimiters_encodings_and_no_quoting(tmp_path):
    path = tmp_path / "export.dat"
    path.write_bytes('id;patient;text\n1;7;"Café" 5\'4"\n2;;x\n'.encode("cp1252"))
    options = {"format": "csv", "delimiter": ";", "quote": "", "encoding": "cp1252"}
    notes, _ = read(path, **options)
    assert [(n.patient, n.text) for n in notes] == [("7", '"Café" 5\'4"'), (None, "x")]


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path):
    csv = tmp_path / "notes.csv"
    csv.write_text("id,patient,text\n1,7,good\n2,7\n3,7,a,b\n\n4,7,\n5,7,last\n")
    notes, tally = read(csv)
    assert [n.id for n in notes] == ["1", "5"]
    assert tally.drops == {"wrong number of columns": 2, "empty text": 1} and tally.rows == 5
    lines = tmp_path / "notes.jsonl"
    rows = ['{"id": 1, "patient": 2, "text": "good"}', "{broken", '{"id": 2}', '{"text": 5}', "[1]"]
    lines.write_text("\n".join(rows))
    notes, tally = read(lines)
    assert [n.text for n in notes] == ["good"] and notes[0].id == "1" and notes[0].patient == "2"
    assert tally.drops == {"not a JSON object": 2, "empty text": 1, "text is not a string": 1}


def test_long_notes_fit(tmp_path):
    path = tmp_path / "notes.csv"
    text = "word, " * 100_000 + "\n\n" + '"' * 2
    path.write_text(csv_text(rows=[("1", "7", text)]), newline="")
    assert read(path)[0][0].text == text


def refused(path, match, **options):
    """Reading fails with a sentence that has no text of the notes in it."""
    with pytest.raises(UserError, match=match) as error:
        read(path, **options)
    assert CANARY not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "xlsx", "datasets"])
def test_a_missing_column_names_those_there_are_and_the_nearest(tmp_path, kind):
    path = WRITERS[kind](tmp_path)
    match = r"no column 'TEXT' \(`text`\); there are 'id', 'patient', 'text'.*did you mean 'text'"
    refused(path, match, text="TEXT")
    refused(path, r"no column 'subject' \(`patient`\)", patient="subject")


def test_a_file_without_header_is_not_quoted(tmp_path):
    path = tmp_path / "notes.csv"
    for first in (f'1,"Seen for {CANARY},\nlong note {"word " * 20}"', f"7,{CANARY}", CANARY):
        path.write_text(f"{first}\n8,more\n")
        refused(path, "of the first row.*not shown.*add a header line")
    workbook = write_xlsx(tmp_path, rows=[], sheet=None)
    import openpyxl

    book = openpyxl.load_workbook(workbook)
    book.active.delete_rows(1)
    book.active.append([1, CANARY])
    book.save(workbook)
    refused(workbook, "of the first row.*not shown")
    refused(write_xlsx(tmp_path), "no sheet 'Notes'; there are 'Sheet'", sheet="Notes")


def test_a_wrong_delimiter_or_encoding_is_named(tmp_path):
    refused(write_csv(tmp_path, delimiter=";"), "holds ';'; set `delimiter`")
    refused(write_csv(tmp_path, "notes.tsv"), "holds ','; set `delimiter`")
    path = tmp_path / "wide.csv"
    for encoding in ("utf-16-le", "utf-16"):
        path.write_bytes(csv_text().encode(encoding))
        refused(path, "begins as UTF-16 does; set `encoding: utf-16`")


def test_what_is_kept_but_worth_a_look_is_counted(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("id,patient,text\n1,7.0,a\0b\n2.0,7,c\n3,P1.0,d\n")
    notes, tally = read(path)
    assert [(n.id, n.patient) for n in notes] == [("1", "7"), ("2", "7"), ("3", "P1.0")]
    assert tally.notices == {"NUL characters removed": 1}
    long = [("n1", "7", "x" * 32_767), ("n2", "8", "short")]
    _, tally = read(write_xlsx(tmp_path, rows=long))
    assert tally.notices == {"32,767 characters, Excel's limit: probably cut": 1}


@pytest.mark.parametrize("name", ["notes.csv", "notes.csv.gz", "notes.jsonl", "notes.txt"])
def test_invalid_utf8_names_file_row_and_byte(tmp_path, name):
    good = f"{CANARY} caf".encode()
    if "csv" in name:
        start = b'id,patient,text\r\n1,7,"two\r\nlines"\r\n2,7,'
        data, place = start + good + b"\xe9 x\r\n3,7,more\r\n", "row 2, byte 53"
    elif "jsonl" in name:
        start = b'{"id": 1, "patient": 2, "text": "x"}\n{"text": "'
        data, place = start + good + b'\xe9"}\n', "line 2, byte 61"
    else:
        data, place = good + b"\xe9", "byte 14"
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    refused(path, rf"{place}: not valid utf-8; set `encoding:`.*cp1252")
    notes, _ = read(path, encoding="cp1252")
    assert notes[-2 if "csv" in name else -1].text.startswith(f"{CANARY} café")


def test_a_cut_character_at_the_end_is_found(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_bytes(b"id,patient,text\n1,7,caf\xc3")
    refused(path, "byte 23: not valid utf-8")
    refused(path, "unknown `encoding` 'utf-9'", encoding="utf-9")


def test_empty_missing_and_damaged_files(tmp_path):
    empty = tmp_path / "empty.csv"
    empty.touch()
    refused(empty, r"empty\.csv: is empty")
    header = tmp_path / "header.csv"
    header.write_text("id,patient,text\n")
    refused(header, r"header\.csv: has no rows")
    refused(tmp_path / "none.csv", r"none\.csv: no such file or folder")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "folder: holds no file ending in .csv")
    (tmp_path / "notes.xyz").write_text(CANARY)
    refused(tmp_path / "notes.xyz", r"notes\.xyz: unknown ending; set `format`")
    for ending, name in {"gz": "gzip", "zst": "zstd"}.items():
        path = write_csv(tmp_path, f"cut.csv.{ending}")
        path.write_bytes(path.read_bytes()[:-12])
        refused(path, f"{name} ends too early")
        path.write_bytes(f"no {name} at all, {CANARY}".encode())
        refused(path, f"{name} is damaged")
    (tmp_path / "bad.xlsx").write_text(CANARY)
    refused(tmp_path / "bad.xlsx", "cannot be read as a workbook")
    (tmp_path / "bad.parquet").write_text(CANARY)
    refused(tmp_path / "bad.parquet", r"bad\.parquet: cannot be read as a Parquet file \(Arrow")
    (tmp_path / "text.jsonl").write_text(f"{CANARY}\n")
    refused(tmp_path / "text.jsonl", "line 1: not a JSON object")


def test_broken_quotes_name_the_line(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text(f'id,patient,text\n1,7,"said "{CANARY}" twice"\n')
    refused(path, "line 2: .* expected after .*export with quotes inside fields doubled")
    path.write_text(f'id,patient,text\n1,7,"{CANARY} without an end\n2,7,x\n')
    refused(path, "line 3: unexpected end of data")


def test_datasets_with_several_splits_or_damage(tmp_path):
    import datasets

    rows = datasets.Dataset.from_list([{"id": 1, "patient": 2, "text": CANARY}])
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "both")
    refused(tmp_path / "both", r"several splits \(test, train\); give the path of one.*both/test")
    assert len(read(tmp_path / "both" / "train")[0]) == 1
    for file in (tmp_path / "both" / "train").glob("*.arrow"):
        file.write_bytes(b"no arrow")
    refused(tmp_path / "both" / "train", "cannot be read as a datasets folder")
