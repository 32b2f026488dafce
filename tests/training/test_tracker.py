"""metrics.jsonl is exact: cut back to the restored step, without a torn line."""

import json

from medjax.training.tracker import Tracker, read_metrics


def write(run_dir, steps, resume_step=0):
    tracker = Tracker(run_dir, resume_step)
    for step in steps:
        tracker.write(step, {"loss": step / 3, "validation/loss": 1})
    tracker.close()


def test_resuming_cuts_back_and_drops_a_torn_line(tmp_path):
    write(tmp_path, [2, 4, 6])
    path = tmp_path / "metrics.jsonl"
    uninterrupted = path.read_text()
    with path.open("a") as file:
        file.write('{"step": 8, "lo')
    assert [m["step"] for m in read_metrics(tmp_path)] == [2, 4, 6]
    write(tmp_path, [6], resume_step=5)
    assert path.read_text() == uninterrupted


def test_lines_are_json_and_events_are_written(tmp_path):
    write(tmp_path, [1])
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 1,
        "loss": 1 / 3,
        "validation/loss": 1,
    }
    assert list((tmp_path / "tensorboard").glob("events.*"))
