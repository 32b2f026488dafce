"""The scripts that make and keep TPU slices, against a stub that records what it is asked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tpu" / "queued_resource.sh"
SETTINGS = {
    "PROJECT": "p",
    "ZONE": "us-west4-a",
    "NAME": "slice",
    "ACCELERATOR": "v5litepod-64",
    "RUNTIME": "v2-alpha-tpuv5-lite",
    "SOURCE": "gs://bucket/medjax.tar.gz",
    "TRAIN": "medjax.pretrain config.yaml --run_dir /mnt/runs/run",
    "POLL": "0",
}
# Answers `describe` with the next line of `states`, and `ssh` with the next exit code of `codes`.
STUB = """#!/usr/bin/env bash
cd "$(dirname "$0")"
echo "$*" >> calls
next() {  # the scripts call for several slices at once
  until mkdir lock 2>/dev/null; do sleep 0.01; done
  head -n 1 "$1"; sed -i 1d "$1"
  rmdir lock
}
case "$*" in
  *describe*) next states ;;
  *ssh*) exit "$(next codes)" ;;
esac
"""


def call(tmp_path, *arguments, states=(), codes=(), **settings):
    """Exit code, what was printed, and the calls of gcloud by their verb."""
    stub = tmp_path / "bin" / "gcloud"
    shutil.rmtree(stub.parent, ignore_errors=True)
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    (stub.parent / "states").write_text("".join(f"{state}\n" for state in states))
    (stub.parent / "codes").write_text("".join(f"{code}\n" for code in codes))
    (stub.parent / "calls").touch()
    own = {name: value for name, value in (SETTINGS | settings).items() if value is not None}
    path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", SCRIPT, *arguments],
        env={"PATH": path} | own,
        capture_output=True,
        text=True,
        timeout=60,
    )
    verbs = ("create", "describe", "ssh", "delete")
    lines = (stub.parent / "calls").read_text().splitlines()
    return done, [next(v for v in verbs if f" {v} " in f" {line} ") for line in lines], lines


def test_a_spot_slice_is_kept_through_a_preemption(tmp_path):
    """Asked for, lost while it trains, asked for again, trained to the end, given back."""
    states = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "SUSPENDED", "ACTIVE"]
    done, verbs, lines = call(tmp_path, "keep", states=states, codes=[0, 255, 0, 0], SPOT="1")
    assert done.returncode == 0, done.stderr
    first = ["create", "describe", "describe", "describe", "ssh", "ssh", "describe", "delete"]
    assert verbs == [*first, "create", "describe", "ssh", "ssh", "delete"]
    assert "--spot" in lines[0] and "--accelerator-type v5litepod-64" in lines[0]
    assert all("--project p --zone us-west4-a" in line for line in lines)
    assert SETTINGS["TRAIN"] in lines[5] and "--worker all" in lines[5]
    assert "gone while it ran; asking again" in done.stdout


@pytest.mark.parametrize("code", [75, 76])
def test_a_run_that_says_it_was_stopped_goes_on(tmp_path, code):
    done, verbs, _ = call(tmp_path, "keep", states=["ACTIVE"] * 2, codes=[0, code, 0, 0])
    assert done.returncode == 0 and verbs.count("create") == verbs.count("delete") == 2


def test_an_error_ends_it_and_nothing_is_left(tmp_path):
    done, verbs, _ = call(tmp_path, "keep", states=["ACTIVE", "ACTIVE"], codes=[0, 2])
    assert done.returncode == 2
    assert verbs.count("create") == 1 and verbs[-1] == "delete"


def test_a_request_that_fails_is_made_again(tmp_path):
    done, verbs, _ = call(tmp_path, "keep", states=["FAILED", "ACTIVE"], codes=[0, 0])
    assert done.returncode == 0 and verbs[:4] == ["create", "describe", "delete", "create"]


def test_several_slices_are_one_request_with_a_node_each(tmp_path):
    done, verbs, lines = call(tmp_path, "run", codes=[0, 0], SLICES="2")
    assert done.returncode == 0 and verbs == ["ssh", "ssh"]
    assert {line.split("ssh ")[1].split()[0] for line in lines} == {"slice-0", "slice-1"}
    _, _, (line,) = call(tmp_path, "create", SLICES="2")
    assert "--node-count 2 --node-prefix slice" in line


def test_one_host_that_fails_fails_the_command(tmp_path):
    done, _, _ = call(tmp_path, "run", codes=[0, 3], SLICES="2")
    assert done.returncode == 3


@pytest.mark.parametrize("command", ["create", "status", "setup", "run", "logs", "keep", "delete"])
def test_missing_settings_are_named_and_nothing_is_asked(tmp_path, command):
    done, verbs, _ = call(tmp_path, command, ZONE=None, NAME=None)
    assert done.returncode == 2 and "not set: ZONE NAME" in done.stderr and verbs == []


def test_a_dry_run_prints_commands_from_create_to_delete(tmp_path):
    done, verbs, _ = call(tmp_path, "--dry-run", "keep", SPOT="1")
    assert done.returncode == 0 and verbs == []
    lines = done.stdout.splitlines()
    assert all(line.startswith("gcloud compute tpus") for line in lines)
    assert "create" in lines[0] and "delete" in lines[-1] and len(lines) == 5


@pytest.mark.parametrize("arguments", [[], ["destroy"]])
def test_other_words_print_the_usage(tmp_path, arguments):
    done, verbs, _ = call(tmp_path, *arguments)
    assert done.returncode == 2 and "give everything back" in done.stderr.replace("gives", "give")
    assert verbs == []


def test_the_jobset_runs_as_many_hosts_as_the_slice_has():
    (own,) = yaml.safe_load_all((ROOT / "tpu" / "jobset.yaml").read_text())
    (job,) = own["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]
    container = pod["template"]["spec"]["containers"][0]
    x, y = pod["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = pod["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert chips == int(x) * int(y) and pod["parallelism"] == pod["completions"]
    assert (ROOT / container["command"][-1]).is_file()
