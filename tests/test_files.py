"""Files are complete or absent, and a folder knows which of its files are the package's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from osmn_tf.errors import InputError
from osmn_tf.files import OwnFolder, atomic_path, ensure_directory, no_empty_folders, remove_leftovers, write_bytes


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_called_probe_stays(tmp_path: Path) -> None:
    (tmp_path / "probe").write_text("mine")
    assert ensure_directory(tmp_path, "--out") == tmp_path
    assert (tmp_path / "probe").read_text() == "mine"
    assert names(tmp_path) == ["probe"]
    with pytest.raises(InputError, match="--out: expected a folder"):
        ensure_directory(tmp_path / "probe", "--out")


def test_leftovers_of_a_killed_process_go_and_nothing_else(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.png", b"whole")
    with atomic_path(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"whole")
        killed = tmp_path / temporary.name.replace(temporary.name[3:11], "01234567")
        killed.write_bytes(b"half")
    other = tmp_path / killed.name.replace(".a.", ".b.")
    other.write_bytes(b"of another file")
    remove_leftovers([tmp_path / "a.png"])
    assert names(tmp_path) == [other.name, "a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"whole"


def test_folder_of_own_files(tmp_path: Path) -> None:
    folder = OwnFolder(tmp_path / "results")
    assert folder.foreign() is None
    assert folder.is_empty()
    folder.claim()
    for name in ("1.png", "2/1.png"):
        write_bytes(folder.file(name), b"x")
    again = OwnFolder(tmp_path / "results")
    assert (again.foreign(), again.is_empty()) == (None, False)
    (tmp_path / "results" / "2" / "notes.txt").write_text("mine")
    assert again.foreign() == tmp_path / "results" / "2" / "notes.txt"
    again.remove()
    assert names(tmp_path) == ["results/2/notes.txt"]


@pytest.mark.parametrize("name", ["a\nb.png", "a\rb.png", "a\u2028b.png", "a\x85b.png", os.fsdecode(b"caf\xe9.png")])
def test_names_with_line_breaks_and_of_other_encodings(name: str, tmp_path: Path) -> None:
    folder = OwnFolder(tmp_path / "results")
    folder.claim()
    write_bytes(folder.file(name), b"x")
    again = OwnFolder(tmp_path / "results")
    assert (again.foreign(), again.is_empty()) == (None, False)
    again.claim()
    OwnFolder(tmp_path / "results").remove()
    assert not (tmp_path / "results").exists()


def test_a_line_that_a_full_disk_cut_does_not_count(tmp_path: Path) -> None:
    folder = OwnFolder(tmp_path)
    folder.claim()
    write_bytes(folder.file("00001.png"), b"x")
    with open(tmp_path / OwnFolder.LIST, "a") as file:
        file.write("0000")
    again = OwnFolder(tmp_path)
    again.claim()
    write_bytes(again.file("00002.png"), b"x")
    assert OwnFolder(tmp_path).foreign() is None
    OwnFolder(tmp_path).remove()
    assert not tmp_path.exists() or not os.listdir(tmp_path)


def test_folders_that_were_created_for_nothing_go_again(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    def refuse() -> None:
        with no_empty_folders():
            for name in ("there", "there/new", "a/b/c", "a/used"):
                ensure_directory(tmp_path / name, "--out")
            (tmp_path / "a/used/1.png").write_bytes(b"x")
            raise InputError("later")

    with pytest.raises(InputError, match="later"):
        refuse()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "a",
        "a/used",
        "a/used/1.png",
        "there",
    ]
    with no_empty_folders():
        ensure_directory(tmp_path / "kept", "--out")
    assert (tmp_path / "kept").is_dir()
