"""Files of MIMIC's official layout with invented text: every rule of the papers."""

import csv
import gzip

import pytest

from medjax.config import UserError
from medjax.data.config import PHYSIONET, SourceConfig
from medjax.data.sources import Tally, read_notes

MIMIC3 = "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION CGID ISERROR"
MIMIC4 = "note_id subject_id hadm_id note_type note_seq charttime storetime text"


def write(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else open(path, "w") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        writer.writerows(rows)
    return path


CHART = "2101-01-01 10:00:00"


def row(number, patient="7", chart=CHART, store="", category="Nursing", caregiver="15", error=""):
    text = f"Invented note {number} with [**Name**]\nand lines."
    return [number, patient, "", "2101-01-01", chart, store, category, "x", caregiver, error, text]


def mimic3(folder, rows, name="NOTEEVENTS.csv"):
    return write(folder / name, [*MIMIC3.split(), "TEXT"], rows)


def read(path, scratch, **options):
    tally = Tally()
    source = SourceConfig(path=str(path), **{"format": "mimic3"} | options)
    notes = list(read_notes(source, tally, scratch))
    return [n.id for n in notes], tally, notes


def test_of_drafts_and_edits_the_last_stored_stays(tmp_path):
    rows = [
        row(1, store="2101-01-01 10:05:00"),
        row(2, store="2101-01-01 12:00:00"),
        row(3, store="2101-01-01 11:00:00"),
        row(4, store="2101-01-01 10:05:00", category="Physician "),
        row(5, store="2101-01-01 10:05:00", caregiver="16"),
        row(6, store="2101-01-01 10:05:00", patient="8"),
        row(7, store="2101-01-01 10:05:00", chart="2101-01-01 11:00:00"),
    ]
    ids, tally, notes = read(mimic3(tmp_path, rows), tmp_path)
    assert ids == ["2", "4", "5", "6", "7"]
    assert tally.drops == {"draft or edit of a note stored later": 2} and tally.rows == 7
    assert notes[0].source == "mimic3" and notes[0].patient == "7"
    assert notes[0].text == "Invented note 2 with [**Name**]\nand lines."


def test_groups_with_a_gap_stay_whole(tmp_path):
    rows = [
        row(1, store="2101-01-01 10:05:00"),
        row(2, store=""),  # the group has no STORETIME everywhere
        row(3, chart="", store="2101-01-01 10:05:00", patient="9"),
        row(4, chart="", store="2101-01-01 11:05:00", patient="9"),
        row(5, caregiver="", store="2101-01-01 10:05:00", patient="10"),
        row(6, caregiver="", store="2101-01-01 11:05:00", patient="10"),
    ]
    assert read(mimic3(tmp_path, rows), tmp_path)[0] == list("123456")


def test_errors_go_and_replace_nothing(tmp_path):
    rows = [row(1, store="2101-01-01 10:05:00"), row(2, store="2101-01-01 12:00:00", error="1")]
    ids, tally, _ = read(mimic3(tmp_path, rows), tmp_path)
    assert ids == ["1"] and tally.drops == {"marked as an error (ISERROR)": 1}


def test_dates_that_do_not_parse_are_counted_and_read_as_missing(tmp_path):
    rows = [row(1, store="2101-01-01 10:05:00"), row(2, store="tomorrow"), row(3, chart="31/12/01")]
    ids, tally, _ = read(mimic3(tmp_path, rows), tmp_path)
    assert ids == ["1", "2", "3"]
    assert tally.notices == {"date does not parse (read as missing)": 2}


def test_the_union_leaves_out_what_mimic4_has(tmp_path):
    rows = [
        row(1, "7", category="Radiology", chart=""),
        row(2, "8", category="Radiology", chart=""),
        row(3, "8", category="Discharge summary", chart=""),
        row(4, "8", category="Nursing", chart=""),
    ]
    path = mimic3(tmp_path, rows, "NOTEEVENTS.csv.gz")
    carevue = write(tmp_path / "PATIENTS.csv", ["ROW_ID", "SUBJECT_ID"], [["1", "7"], ["2", "70"]])
    ids, tally, _ = read(path, tmp_path, carevue_patients=str(carevue))
    assert ids == ["1", "4"] and tally.drops == {"also in MIMIC-IV (union rule)": 2}
    assert read(path, tmp_path)[0] == list("1234")


def test_mimic4_folders_as_handed_out(tmp_path):
    for name, kind in (("discharge", "DS"), ("radiology", "RR")):
        rows = [[f"10-{kind}-{i}", "10", "", kind, i, "", "", f"{name} ___ {i}"] for i in (1, 2)]
        write(tmp_path / "note" / f"{name}.csv.gz", MIMIC4.split(), rows)
        write(tmp_path / "note" / f"{name}_detail.csv.gz", ["note_id"], [["10-DS-1"]])
    ids, tally, notes = read(tmp_path, tmp_path, format="mimic4")
    assert ids == ["10-DS-1", "10-DS-2", "10-RR-1", "10-RR-2"] and tally.rows == 4
    assert {(n.source, n.patient) for n in notes} == {("mimic4", "10")}


def test_terms_come_with_the_format_and_can_be_set(tmp_path):
    source = SourceConfig(path="x", format="mimic4")
    assert (source.access, source.licence) == ("credentialed", PHYSIONET)
    assert SourceConfig(path="x", format="mimic3", name="ours").namespace == "ours"
    saved = source.model_dump(mode="json")
    assert SourceConfig.model_validate(saved) == source


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match=r"holds no NOTEEVENTS\.csv"):
        read(tmp_path, tmp_path)
    write(tmp_path / "NOTEEVENTS.csv", ["ROW_ID", "TEXT"], [["1", "x"]])
    with pytest.raises(UserError, match="no column 'SUBJECT_ID'"):
        read(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="carevue_patients is for format mimic3"):
        SourceConfig(path="x", carevue_patients="y")
    with pytest.raises(ValueError, match="remove join_by"):
        SourceConfig(path="x", format="mimic3", join_by="y")
