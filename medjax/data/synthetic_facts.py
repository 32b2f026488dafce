"""Tables behind `synthetic.py`: problems with what goes with them, laboratory ranges, phrases.

Plausible enough that a model has correlations to learn (diabetes goes with metformin, a high
HbA1c and polyuria); no source of medical knowledge.
"""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """A condition and what its presence makes likely in a note."""

    name: str
    short: str
    weight: int
    """How common it is."""
    drugs: tuple[tuple[str, tuple[str, ...], str], ...]
    """(drug, doses, frequency) that a patient may take for it."""
    labs: tuple[tuple[str, float], ...]
    """(laboratory value, factor by which it is off)."""
    symptoms: tuple[str, ...]
    finding: str
    """Physical examination."""
    imaging: tuple[str, str]
    """(study, finding)."""
    plan: tuple[str, ...]
    related: tuple[int, ...]
    """Indices of problems that tend to come with it."""


PROBLEMS = (
    Problem(
        "type 2 diabetes mellitus", "T2DM", 9,
        (("metformin", ("500 mg", "850 mg", "1000 mg"), "BID"),
         ("insulin glargine", ("10 units", "18 units", "24 units"), "QHS"),
         ("glipizide", ("5 mg", "10 mg"), "daily")),
        (("glucose", 1.9), ("HbA1c", 1.6)),
        ("polyuria", "polydipsia", "blurred vision"),
        "decreased sensation to monofilament in both feet",
        ("foot x-ray", "no evidence of osteomyelitis"),
        ("fingersticks QID with sliding scale insulin", "hold metformin while NPO",
         "diabetic diet and nutrition consult"),
        (1, 2, 5),
    ),
    Problem(
        "hypertension", "HTN", 12,
        (("lisinopril", ("5 mg", "10 mg", "20 mg", "40 mg"), "daily"),
         ("amlodipine", ("5 mg", "10 mg"), "daily"),
         ("hydrochlorothiazide", ("12.5 mg", "25 mg"), "daily")),
        (("creatinine", 1.1),),
        ("headache", "dizziness"),
        "S4 gallop, no edema",
        ("chest x-ray", "mild cardiomegaly without effusion"),
        ("continue home antihypertensives", "goal BP below 130/80"),
        (0, 2, 3),
    ),
    Problem(
        "hyperlipidemia", "HLD", 9,
        (("atorvastatin", ("20 mg", "40 mg", "80 mg"), "QHS"),
         ("simvastatin", ("10 mg", "20 mg", "40 mg"), "QHS")),
        (("LDL", 1.5), ("triglycerides", 1.7)),
        ("leg cramps", "chest tightness"),
        "xanthelasma of the left eyelid",
        ("carotid ultrasound", "less than 40% stenosis bilaterally"),
        ("continue statin", "recheck lipid panel in 3 months"),
        (1, 3),
    ),
    Problem(
        "coronary artery disease", "CAD", 7,
        (("aspirin", ("81 mg", "325 mg"), "daily"),
         ("metoprolol tartrate", ("12.5 mg", "25 mg", "50 mg"), "BID"),
         ("clopidogrel", ("75 mg",), "daily")),
        (("troponin", 6.0),),
        ("chest pain", "diaphoresis", "left arm pain"),
        "regular rate and rhythm, II/VI systolic murmur at the apex",
        ("cardiac catheterization", "70% stenosis of the mid LAD"),
        ("trend troponins q8h", "heparin gtt per protocol", "cardiology consult"),
        (1, 2, 4),
    ),
    Problem(
        "congestive heart failure", "CHF", 6,
        (("furosemide", ("20 mg", "40 mg", "80 mg"), "daily"),
         ("carvedilol", ("3.125 mg", "6.25 mg", "12.5 mg"), "BID"),
         ("spironolactone", ("25 mg",), "daily")),
        (("BNP", 8.0), ("sodium", 0.96)),
        ("dyspnea on exertion", "orthopnea", "leg swelling", "weight gain"),
        "JVP elevated to 12 cm, bibasilar crackles, 2+ pitting edema to the knees",
        ("transthoracic echocardiogram", "LVEF 30% with global hypokinesis"),
        ("diurese with IV furosemide, goal negative 1-2 L per day", "daily weights, strict I/Os",
         "2 g sodium diet, fluid restriction 1.5 L"),
        (1, 3, 6),
    ),
    Problem(
        "chronic kidney disease", "CKD", 5,
        (("sevelamer", ("800 mg",), "TID with meals"),
         ("calcitriol", ("0.25 mcg",), "daily")),
        (("creatinine", 2.4), ("BUN", 2.2), ("potassium", 1.15), ("hemoglobin", 0.8)),
        ("fatigue", "decreased urine output"),
        "no asterixis, trace ankle edema",
        ("renal ultrasound", "echogenic kidneys without hydronephrosis"),
        ("avoid nephrotoxins, renally dose medications", "trend creatinine", "renal consult"),
        (0, 1),
    ),
    Problem(
        "atrial fibrillation", "AF", 6,
        (("warfarin", ("2 mg", "3 mg", "5 mg"), "daily"),
         ("apixaban", ("2.5 mg", "5 mg"), "BID"),
         ("diltiazem", ("120 mg", "240 mg"), "daily")),
        (("INR", 2.3),),
        ("palpitations", "lightheadedness"),
        "irregularly irregular rhythm, no murmurs",
        ("ECG", "atrial fibrillation with rapid ventricular response"),
        ("rate control, goal HR below 110", "continue anticoagulation, goal INR 2-3",
         "telemetry monitoring"),
        (1, 4),
    ),
    Problem(
        "chronic obstructive pulmonary disease", "COPD", 6,
        (("albuterol nebulizer", ("2.5 mg",), "q4h PRN"),
         ("tiotropium", ("18 mcg",), "daily"),
         ("prednisone", ("20 mg", "40 mg"), "daily")),
        (("pCO2", 1.3), ("bicarbonate", 1.2)),
        ("shortness of breath", "productive cough", "wheezing"),
        "diffuse expiratory wheezes, prolonged expiratory phase",
        ("chest x-ray", "hyperinflated lungs with flattened diaphragms"),
        ("nebulizers q4h and prednisone taper", "wean O2 to keep SpO2 88-92%",
         "smoking cessation counseling"),
        (8, 1),
    ),
    Problem(
        "pneumonia", "PNA", 5,
        (("ceftriaxone", ("1 g",), "q24h"), ("azithromycin", ("250 mg", "500 mg"), "daily"),
         ("levofloxacin", ("500 mg", "750 mg"), "daily")),
        (("WBC", 1.9), ("lactate", 1.6)),
        ("fever", "productive cough", "pleuritic chest pain", "chills"),
        "decreased breath sounds and crackles at the right base",
        ("chest x-ray", "right lower lobe consolidation concerning for pneumonia"),
        ("ceftriaxone and azithromycin for 5 days", "follow up sputum and blood cultures",
         "incentive spirometry"),
        (7,),
    ),
    Problem(
        "urinary tract infection", "UTI", 5,
        (("ciprofloxacin", ("250 mg", "500 mg"), "BID"),
         ("nitrofurantoin", ("100 mg",), "BID")),
        (("WBC", 1.6),),
        ("dysuria", "urinary frequency", "suprapubic pain", "fever"),
        "mild suprapubic tenderness, no CVA tenderness",
        ("renal ultrasound", "no hydronephrosis or perinephric abscess"),
        ("follow up urine culture and narrow antibiotics", "remove Foley catheter"),
        (0, 5),
    ),
    Problem(
        "gastrointestinal bleed", "GIB", 4,
        (("pantoprazole", ("40 mg",), "BID"), ("ferrous sulfate", ("325 mg",), "daily")),
        (("hemoglobin", 0.6), ("BUN", 1.6)),
        ("melena", "hematochezia", "lightheadedness", "fatigue"),
        "pale conjunctivae, guaiac positive stool",
        ("upper endoscopy", "clean-based ulcer in the duodenal bulb"),
        ("two large bore IVs, type and cross", "transfuse for Hgb below 7", "GI consult for EGD"),
        (6, 11),
    ),
    Problem(
        "cirrhosis", "cirrhosis", 3,
        (("lactulose", ("30 mL",), "TID"), ("rifaximin", ("550 mg",), "BID"),
         ("nadolol", ("20 mg", "40 mg"), "daily")),
        (("bilirubin", 4.0), ("albumin", 0.6), ("platelets", 0.4), ("INR", 1.6)),
        ("abdominal distension", "confusion", "jaundice"),
        "scleral icterus, shifting dullness, asterixis",
        ("abdominal ultrasound", "nodular liver with moderate ascites"),
        ("titrate lactulose to 3-4 bowel movements per day", "diagnostic paracentesis",
         "hepatology follow up"),
        (10,),
    ),
    Problem(
        "hypothyroidism", "hypothyroidism", 5,
        (("levothyroxine", ("50 mcg", "75 mcg", "100 mcg", "125 mcg"), "daily"),),
        (("TSH", 2.5),),
        ("fatigue", "cold intolerance", "constipation"),
        "delayed relaxation of ankle reflexes",
        ("thyroid ultrasound", "heterogeneous gland without nodules"),
        ("continue levothyroxine", "recheck TSH in 6 weeks"),
        (13,),
    ),
    Problem(
        "major depressive disorder", "MDD", 5,
        (("sertraline", ("50 mg", "100 mg"), "daily"), ("trazodone", ("50 mg",), "QHS PRN"),
         ("citalopram", ("10 mg", "20 mg"), "daily")),
        (),
        ("low mood", "insomnia", "poor appetite"),
        "flat affect, linear thought process",
        ("head CT", "no acute intracranial process"),
        ("continue home SSRI", "social work consult", "denies suicidal ideation, no 1:1 needed"),
        (12,),
    ),
    Problem(
        "ischemic stroke", "CVA", 4,
        (("clopidogrel", ("75 mg",), "daily"), ("atorvastatin", ("80 mg",), "QHS")),
        (("LDL", 1.4),),
        ("right arm weakness", "slurred speech", "facial droop"),
        "4/5 strength in the right upper extremity, right facial droop, mild dysarthria",
        ("head MRI", "acute infarct in the left MCA territory"),
        ("neuro checks q4h", "permissive hypertension for 24 hours", "PT/OT and speech evaluation"),
        (1, 6),
    ),
    Problem(
        "deep vein thrombosis", "DVT", 4,
        (("enoxaparin", ("60 mg", "80 mg"), "BID"), ("warfarin", ("5 mg",), "daily")),
        (("D-dimer", 5.0),),
        ("left leg pain", "calf swelling"),
        "left calf 3 cm larger than right, warm and tender",
        ("lower extremity ultrasound", "occlusive thrombus in the left popliteal vein"),
        ("therapeutic anticoagulation with bridge to warfarin", "compression stockings"),
        (6,),
    ),
)  # fmt: skip

# name: (printed name, mean, spread, decimals, unit)
LABS = {
    "WBC": ("WBC", 7.5, 1.5, 1, "K/uL"),
    "hemoglobin": ("Hgb", 13.2, 1.0, 1, "g/dL"),
    "platelets": ("Plt", 235, 40, 0, "K/uL"),
    "sodium": ("Na", 139, 2, 0, "mEq/L"),
    "potassium": ("K", 4.1, 0.3, 1, "mEq/L"),
    "bicarbonate": ("HCO3", 25, 2, 0, "mEq/L"),
    "BUN": ("BUN", 16, 4, 0, "mg/dL"),
    "creatinine": ("Cr", 0.9, 0.15, 1, "mg/dL"),
    "glucose": ("glucose", 104, 12, 0, "mg/dL"),
    "HbA1c": ("HbA1c", 5.3, 0.3, 1, "%"),
    "LDL": ("LDL", 98, 15, 0, "mg/dL"),
    "triglycerides": ("TG", 120, 25, 0, "mg/dL"),
    "troponin": ("troponin", 0.03, 0.01, 2, "ng/mL"),
    "BNP": ("BNP", 120, 40, 0, "pg/mL"),
    "INR": ("INR", 1.1, 0.1, 1, ""),
    "lactate": ("lactate", 1.2, 0.3, 1, "mmol/L"),
    "pCO2": ("pCO2", 41, 3, 0, "mmHg"),
    "bilirubin": ("T bili", 0.7, 0.2, 1, "mg/dL"),
    "albumin": ("albumin", 4.0, 0.3, 1, "g/dL"),
    "TSH": ("TSH", 2.4, 0.8, 1, "uIU/mL"),
    "D-dimer": ("D-dimer", 320, 90, 0, "ng/mL"),
}
ROUTINE = ("WBC", "hemoglobin", "platelets", "sodium", "potassium", "bicarbonate", "BUN")
ROUTINE += ("creatinine", "glucose")

ALLERGIES = (
    "NKDA", "No known drug allergies", "Penicillins (rash)", "Sulfa (hives)", "Codeine (nausea)",
    "Iodinated contrast", "Lisinopril (cough)", "Latex",
)  # fmt: skip
SURGERIES = (
    "s/p appendectomy", "s/p cholecystectomy", "s/p right total knee replacement",
    "s/p CABG x3", "s/p hysterectomy", "s/p inguinal hernia repair", "no prior surgeries",
    "s/p cataract extraction OU",
)  # fmt: skip
SOCIAL = (
    "Lives with spouse, retired teacher.", "Lives alone, independent in ADLs.",
    "Lives in assisted living.", "Works as a bus driver.", "Lives with daughter.",
    "Retired carpenter, walks with a cane.",
)  # fmt: skip
SMOKING = (
    "Never smoker.", "Quit smoking 10 years ago, 30 pack-years.", "Smokes 1 ppd.",
    "Former smoker, 15 pack-years.",
)  # fmt: skip
ALCOHOL = ("Denies alcohol use.", "Drinks 2-3 beers on weekends.", "Prior heavy EtOH use, sober.")
DENIALS = (
    "fever", "chills", "nausea", "vomiting", "chest pain", "abdominal pain", "headache",
    "diarrhea", "palpitations", "dysuria", "night sweats", "shortness of breath", "hemoptysis",
    "recent travel", "sick contacts",
)  # fmt: skip
COURSE = (
    "The patient was admitted to the {service} service and treated as above.",
    "{Pron} improved steadily over the first {days} days.",
    "Symptoms resolved by hospital day {days}.",
    "There were no complications during the stay.",
    "{Pron} remained hemodynamically stable and afebrile.",
    "Overnight on hospital day {days} {pron} had a brief desaturation that resolved with 2 L NC.",
    "Electrolytes were repleted as needed.",
    "{Pron} tolerated a regular diet and ambulated with assistance.",
)
NURSING = (
    "Pt alert and oriented x3, MAE, follows commands.",
    "Pt c/o {symptom}, MD aware, medicated with good effect.",
    "Lungs clear, diminished at bases. O2 sat {spo2}% on {oxygen}.",
    "Abd soft, +BS, tolerating PO. No BM this shift.",
    "Foley patent, draining clear yellow urine {urine} cc/hr.",
    "Skin intact, turned q2h, heels elevated.",
    "IV in left forearm patent, site benign.",
    "Family in to visit, updated by team.",
    "Fingerstick {glucose}, covered per sliding scale.",
    "Plan: continue to monitor, {plan}.",
    "Pt slept in naps, call bell within reach, bed alarm on.",
    "HR {hr} NSR, no ectopy. BP {bp} via cuff.",
)
DRAFT_EDITS = (
    ("stable", "stable and improving"), ("Pt", "Patient"), ("denies", "currently denies"),
    ("admitted", "initially admitted"), ("continue", "will continue"), ("daily", "once daily"),
    ("no ", "no acute "), ("with", "w/"),
)  # fmt: skip
