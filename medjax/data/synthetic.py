"""Synthetic clinical notes: seeded, so that tests and the demo run on any machine.

    python -m medjax.data.synthetic OUT.jsonl --patients 200 --seed 0

Each patient has problems, medications and laboratory values that stay the same over one to three
admissions; each admission has a discharge summary, progress, nursing and radiology notes. Some
notes come twice, exactly or as draft and edit. Names and dates are placeholders, as in MIMIC-III
(`[**Last Name**]`) or MIMIC-IV (`___`). Only `Random.random()` is used, whose sequence Python
promises to keep, so the same seed gives the same bytes everywhere.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

from medjax.data.synthetic_facts import (
    ALCOHOL,
    ALLERGIES,
    COURSE,
    DENIALS,
    DRAFT_EDITS,
    LABS,
    NURSING,
    PROBLEMS,
    ROUTINE,
    SMOKING,
    SOCIAL,
    SURGERIES,
    Problem,
)

T = TypeVar("T")
EXACT_DUPLICATES, NEAR_DUPLICATES = 0.05, 0.10


class Patient(NamedTuple):
    """What stays the same over a patient's notes."""

    age: int
    sex: str
    problems: tuple[Problem, ...]
    medications: tuple[str, ...]
    baseline: dict[str, float]
    """Laboratory values in the steady state."""
    allergies: str
    history: str
    social: str
    tagged: bool
    """Placeholders as [**...**] rather than ___."""
    terse: bool
    """Authors abbreviate."""


def write_notes(path: str | Path, num_patients: int, seed: int) -> int:
    """Writes JSON lines (id, patient, category, text) and returns their number.

    Patient `i` of a seed is the same whatever the number of patients.
    """
    count = 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for index in range(num_patients):
            for note in patient_notes(index, seed):
                file.write(json.dumps(note, ensure_ascii=False) + "\n")
                count += 1
    return count


def patient_notes(index: int, seed: int) -> Iterator[dict[str, str]]:
    """All notes of one patient, in order of time."""
    rng = Random(seed * 1_000_003 + index)
    patient = _patient(rng)
    name, count = f"p{index:06d}", 0
    for _ in range(_between(rng, 1, 3)):
        for category, text in _admission(rng, patient):
            for version in _versions(rng, text):
                note_id = f"{name}-{count:03d}"
                yield {"id": note_id, "patient": name, "category": category, "text": version}
                count += 1


def _pick(rng: Random, items: Sequence[T]) -> T:
    return items[int(rng.random() * len(items))]


def _between(rng: Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def _some(rng: Random, items: Sequence[T], low: int, high: int) -> list[T]:
    """Between `low` and `high` different items in random order."""
    rest = list(items)
    count = min(_between(rng, low, high), len(rest))
    return [rest.pop(int(rng.random() * len(rest))) for _ in range(count)]


def _join(items: Sequence[str], word: str = "and") -> str:
    items = list(items)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"


def _patient(rng: Random) -> Patient:
    problems = _problems(rng)
    medications = []
    for problem in problems:
        for drug, doses, frequency in _some(rng, problem.drugs, 1, 2):
            if not any(m.startswith(drug) for m in medications):
                medications.append(f"{drug} {_pick(rng, doses)} {frequency}")
    baseline = {}
    for name, (_, mean, spread, _, _) in LABS.items():
        baseline[name] = mean + spread * (rng.random() + rng.random() - 1)
    for problem in problems:
        for name, factor in problem.labs:
            baseline[name] *= 1 + (factor - 1) * (0.6 + 0.8 * rng.random())
    return Patient(
        age=_between(rng, 24, 89),
        sex=_pick(rng, ("M", "F")),
        problems=tuple(problems),
        medications=tuple(medications),
        baseline=baseline,
        allergies=_pick(rng, ALLERGIES),
        history=_pick(rng, SURGERIES),
        social=" ".join(_pick(rng, s) for s in (SOCIAL, SMOKING, ALCOHOL)),
        tagged=rng.random() < 0.5,
        terse=rng.random() < 0.5,
    )


def _problems(rng: Random) -> list[Problem]:
    """Two to six problems; those related to the ones a patient has are likelier."""
    chosen: list[int] = []
    for _ in range(_between(rng, 2, 6)):
        related = {r for i in chosen for r in PROBLEMS[i].related}
        weights = [
            0 if i in chosen else p.weight * (4 if i in related else 1)
            for i, p in enumerate(PROBLEMS)
        ]
        place = rng.random() * sum(weights)
        for i, weight in enumerate(weights):
            place -= weight
            if place < 0:
                chosen.append(i)
                break
    return [PROBLEMS[i] for i in chosen]


def _hidden(rng: Random, patient: Patient, kind: str) -> str:
    """A de-identification placeholder."""
    if not patient.tagged:
        return "___"
    number = _between(rng, 1, 9999)
    date = f"{_between(rng, 2100, 2199)}-{_between(rng, 1, 12)}-{_between(rng, 1, 28)}"
    return {
        "name": f"[**Last Name (NamePattern1) {number}**]",
        "date": f"[**{date}**]",
        "place": f"[**Hospital {number % 50}**]",
        "doctor": f"[**Doctor First Name {number}**] [**Doctor Last Name {number % 300}**]",
    }[kind]


def _admission(rng: Random, patient: Patient) -> Iterator[tuple[str, str]]:
    """(category, text) of each note of one stay."""
    acute = _pick(rng, patient.problems)
    days = _between(rng, 2, 9)
    for _ in range(_between(rng, 0, 2)):
        problem = _pick(rng, (acute, *patient.problems))
        yield "Radiology", _radiology(rng, patient, problem)
    for day in range(1, _between(rng, 2, min(days, 4)) + 1):
        yield "Physician", _progress(rng, patient, acute, day)
        if rng.random() < 0.7:
            yield "Nursing", _nursing(rng, patient, acute)
    yield "Discharge summary", _discharge(rng, patient, acute, days)


def _versions(rng: Random, text: str) -> list[str]:
    """A note, sometimes with a second copy or preceded by its draft."""
    place = rng.random()
    if place < EXACT_DUPLICATES:
        return [text, text]
    if place < EXACT_DUPLICATES + NEAR_DUPLICATES:
        old, new = _pick(rng, DRAFT_EDITS)
        edited = text.replace(old, new, 1)
        return [text, edited] if edited != text else [text]
    return [text]


def _vitals(rng: Random, patient: Patient) -> dict[str, str]:
    short = {p.short for p in patient.problems}
    systolic = _between(rng, 108, 138) + (18 if "HTN" in short else 0)
    rate = _between(rng, 62, 88) + (30 if "AF" in short else 0)
    lungs = bool(short & {"COPD", "PNA", "CHF"})
    fever = bool(short & {"PNA", "UTI"})
    return {
        "temp": f"{98.2 + rng.random() + (2.2 * rng.random() if fever else 0):.1f}",
        "bp": f"{systolic}/{int(systolic * 0.55) + _between(rng, 0, 12)}",
        "hr": str(rate),
        "rr": str(_between(rng, 14, 18) + (6 if lungs else 0)),
        "spo2": str(_between(rng, 89, 94) if lungs else _between(rng, 96, 100)),
        "oxygen": f"{_between(rng, 2, 4)}L NC" if lungs else "RA",
    }


def _vitals_line(rng: Random, patient: Patient) -> str:
    v = _vitals(rng, patient)
    form = _pick(
        rng,
        (
            "T {temp} BP {bp} HR {hr} RR {rr} O2 sat {spo2}% on {oxygen}",
            "VS: {temp}, {hr}, {bp}, {rr}, {spo2}% {oxygen}",
            "Temp: {temp}°F  BP: {bp}  HR: {hr}  RR: {rr}  SpO2: {spo2}% ({oxygen})",
        ),
    )
    return form.format(**v)


def _lab(rng: Random, patient: Patient, name: str) -> str:
    printed, _, _, decimals, unit = LABS[name]
    value = patient.baseline[name] * (0.94 + 0.12 * rng.random())
    flag = "*" if _abnormal(value, name) else ""
    return f"{printed} {value:.{decimals}f}{flag} {unit}".rstrip()


def _abnormal(value: float, name: str) -> bool:
    _, mean, spread, _, _ = LABS[name]
    return abs(value - mean) > 2.5 * spread


def _labs(rng: Random, patient: Patient) -> str:
    special = [name for p in patient.problems for name, _ in p.labs if name not in ROUTINE]
    names = [*ROUTINE, *dict.fromkeys(special)]
    return ", ".join(_lab(rng, patient, n) for n in names)


def _term(patient: Patient, problem: Problem) -> str:
    return problem.short if patient.terse else problem.name


def _presentation(rng: Random, patient: Patient, acute: Problem) -> str:
    """History of present illness: who, with what history, complains of and denies what."""
    others = [p for p in patient.problems if p is not acute]
    noun = {"M": ("man", "male", "gentleman"), "F": ("woman", "female", "lady")}[patient.sex]
    pronoun = "he" if patient.sex == "M" else "she"
    symptoms = _some(rng, acute.symptoms, 1, 3)
    denied = [d for d in _some(rng, DENIALS, 2, 5) if d not in symptoms] or ["recent travel"]
    since = f"{_between(rng, 2, 10)} {_pick(rng, ('days', 'days', 'weeks', 'hours'))}"
    history = _join([_term(patient, p) for p in others]) if others else "no significant PMH"
    opening = (
        f"{patient.age} y/o {patient.sex} w/ h/o {history} p/w {since} of {_join(symptoms)}."
        if patient.terse
        else f"This is a {patient.age} year old {_pick(rng, noun)} with a history of {history} who "
        f"presents with {since} of {_join(symptoms)}."
    )
    denial = _pick(rng, ("{Pron} denies {what}.", "No {what}.", "Negative for {what}."))
    denial = denial.format(Pron=pronoun.capitalize(), what=_join(denied, "or"))
    arrival = _pick(
        rng,
        (
            f"{pronoun.capitalize()} was seen by {_hidden(rng, patient, 'doctor')} in clinic on "
            f"{_hidden(rng, patient, 'date')} and sent to the ED.",
            f"In the ED, initial vitals were {_vitals_line(rng, patient)}.",
            f"Transferred from {_hidden(rng, patient, 'place')} for further management.",
        ),
    )
    return f"{opening} {denial} {arrival}"


def _exam(rng: Random, patient: Patient, acute: Problem) -> str:
    lines = [f"General: {_pick(rng, ('NAD', 'comfortable', 'alert, in no distress', 'ill'))}"]
    lines += [f"Pertinent: {p.finding}" for p in dict.fromkeys((acute, patient.problems[0]))]
    lines.append(_pick(rng, ("Neuro: A&Ox3, CN II-XII intact", "Abd: soft, NT/ND, +BS")))
    return "\n".join(lines)


def _progress(rng: Random, patient: Patient, acute: Problem, day: int) -> str:
    events = _pick(rng, ("No acute events overnight.", "Slept well.", "Pt had pain overnight."))
    better = _pick(rng, ("improved", "unchanged", "resolving", "stable"))
    plans = [
        f"# {_term(patient, p)}: {_join(_some(rng, p.plan, 1, 2))}"
        for p in (acute, *(p for p in patient.problems if p is not acute))
    ]
    return "\n".join(
        [
            f"Progress note, hospital day {day}",
            f"S: {events} {acute.symptoms[0].capitalize()} {better}. "
            f"Denies {_join(_some(rng, DENIALS, 2, 3), 'or')}.",
            f"O: {_vitals_line(rng, patient)}",
            _exam(rng, patient, acute),
            f"Labs: {_labs(rng, patient)}",
            "A/P:",
            *plans,
            f"Code status: {_pick(rng, ('Full code', 'DNR/DNI', 'Full code (confirmed)'))}",
            f"{_hidden(rng, patient, 'doctor')}, MD",
        ]
    )


def _nursing(rng: Random, patient: Patient, acute: Problem) -> str:
    values = _vitals(rng, patient) | {
        "symptom": _pick(rng, acute.symptoms),
        "urine": str(_between(rng, 20, 120)),
        "glucose": f"{patient.baseline['glucose'] * (0.9 + 0.3 * rng.random()):.0f}",
        "plan": _pick(rng, acute.plan),
    }
    lines = _some(rng, NURSING, 4, 8)
    shift = _pick(rng, ("0700-1900", "1900-0700", "NPN 7a-7p", "Nursing progress note"))
    return "\n".join([shift, *(line.format(**values) for line in lines)])


def _radiology(rng: Random, patient: Patient, problem: Problem) -> str:
    study, finding = problem.imaging
    reason = (
        f"{patient.age} year old {patient.sex} with {_join(_some(rng, problem.symptoms, 1, 2))}"
    )
    compared = _pick(rng, ("None.", f"Prior study of {_hidden(rng, patient, 'date')}."))
    negative = _pick(rng, ("pneumothorax", "acute fracture", "mass", "hemorrhage"))
    return "\n".join(
        [
            f"EXAMINATION: {study.upper()}",
            f"INDICATION: {reason} // eval for {_term(patient, problem)}",
            f"COMPARISON: {compared}",
            f"FINDINGS: There is {finding}. No evidence of {negative}.",
            f"IMPRESSION: {finding.capitalize()}.",
        ]
    )


def _discharge(rng: Random, patient: Patient, acute: Problem, days: int) -> str:
    pronoun = "he" if patient.sex == "M" else "she"
    words = {
        "service": _pick(rng, ("medicine", "cardiology", "general medicine")),
        "days": _between(rng, 1, days),
        "pron": pronoun,
        "Pron": pronoun.capitalize(),
    }
    course = " ".join(line.format(**words) for line in _some(rng, COURSE, 2, 4))
    study, finding = acute.imaging
    medications = "\n".join(f"{i}. {m}" for i, m in enumerate(patient.medications, 1))
    history = "\n".join(f"- {_term(patient, p)}" for p in patient.problems)
    follow = f"{_hidden(rng, patient, 'doctor')} in {_between(rng, 1, 4)} weeks"
    sections = [
        f"Name: {_hidden(rng, patient, 'name')}   Unit No: {_hidden(rng, patient, 'name')}\n"
        f"Admission Date: {_hidden(rng, patient, 'date')}   Sex: {patient.sex}",
        f"Allergies: {patient.allergies}",
        f"Chief Complaint:\n{_pick(rng, acute.symptoms)}",
        f"History of Present Illness:\n{_presentation(rng, patient, acute)}",
        f"Past Medical History:\n{history}\n- {patient.history}",
        f"Social History:\n{patient.social}",
        f"Physical Exam:\n{_vitals_line(rng, patient)}\n{_exam(rng, patient, acute)}",
        f"Pertinent Results:\n{_labs(rng, patient)}\n{study}: {finding}",
        f"Brief Hospital Course:\n# {_term(patient, acute)}: {_join(acute.plan)}. {course}",
        f"Discharge Medications:\n{medications}",
        f"Discharge Diagnosis:\n{acute.name}",
        f"Discharge Condition:\n{_pick(rng, ('Stable', 'Good', 'Improved, ambulatory'))}",
        f"Followup Instructions:\nPlease follow up with {follow}.",
    ]
    return "\n\n".join(sections)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write synthetic clinical notes as JSON lines.")
    parser.add_argument("path", type=Path, help="file to write")
    parser.add_argument("--patients", type=int, default=200, help="number of patients")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same notes")
    arguments = parser.parse_args()
    count = write_notes(arguments.path, arguments.patients, arguments.seed)
    size = arguments.path.stat().st_size
    print(f"{arguments.path}: {count:,} notes of {arguments.patients:,} patients, {size:,} bytes")


if __name__ == "__main__":
    _main()
