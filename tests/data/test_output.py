"""Output folders appear whole or not at all."""

import errno

import pytest

from medjax.config import UserError
from medjax.data import output
from medjax.data.output import is_complete, new_folder


def test_a_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "deep" / "out"
    with new_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
        assert not target.exists() and folder.parent == target.parent
    assert (target / "sub" / "file").read_text() == "x"
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_an_error_leaves_nothing_and_an_old_folder_as_it_was(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), new_folder(target) as folder:
        (folder / "file").write_text("new")
        _ = 1 / 0
    assert (target / "file").read_text() == "old"
    with new_folder(target) as folder:
        (folder / "file").write_text("new")
    assert (target / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    left = tmp_path / ".out.incomplete"
    left.mkdir()
    (left / "00000.tokens").write_text("half")
    with new_folder(tmp_path / "out") as folder:
        assert not any(folder.iterdir())
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_two_runs_do_not_write_the_same_folder(tmp_path):
    with (
        new_folder(tmp_path / "out"),
        pytest.raises(UserError, match="another run is writing it"),
        new_folder(tmp_path / "out"),
    ):
        pass


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
    ],
)
def test_a_full_disk_or_a_closed_folder_names_the_path(tmp_path, number, words):
    with pytest.raises(UserError, match=f"out: .*{words}"), new_folder(tmp_path / "out"):
        raise OSError(number, "os message")
    assert not any(tmp_path.iterdir())


def test_a_full_disk_while_flushing_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(output.os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"), new_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
    assert not any(tmp_path.iterdir())


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(UserError, match="a part of the path is a file"),
        new_folder(tmp_path / "file" / "out"),
    ):
        pass


def test_what_exists_is_left_alone_refused_or_replaced(tmp_path):
    target = tmp_path / "out"
    same, other = (lambda: []), (lambda: ["seed: 0 -> 1"])
    assert not is_complete(target, "marker", same, overwrite=False)
    target.mkdir()
    assert not is_complete(target, "marker", same, overwrite=False)
    (target / "thesis.doc").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="exists, but is no result of this command"):
            is_complete(target, "marker", same, overwrite)
    (target / "marker").write_text("x")
    assert is_complete(target, "marker", same, overwrite=False)
    assert is_complete(target, "marker", same, overwrite=True)
    with pytest.raises(UserError, match=r"made differently; .*overwrite.*\n  seed: 0 -> 1"):
        is_complete(target, "marker", other, overwrite=False)
    assert not is_complete(target, "marker", other, overwrite=True)
