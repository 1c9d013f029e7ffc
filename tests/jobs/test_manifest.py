"""Records and claims: what survives kills, copies and other processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from osmn_tf.errors import InputError
from osmn_tf.jobs import manifest as module
from osmn_tf.jobs.manifest import RESULTS, Claim, Fingerprint, Manifest


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"frames")
    return path


def record_of(fingerprint: Fingerprint, **changes: object) -> dict[str, object]:
    record = {"name": "clip", "status": "done", "results": {"masks": "clip"}, "facts": fingerprint.facts}
    return {**record, "stamp": fingerprint.stamp, "content": fingerprint.content, **changes}


def test_settings_and_content_decide_what_is_done(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "clip").mkdir(parents=True)
    Manifest(out).add(record_of(Fingerprint.of({"end": 3}, [video])))
    assert Manifest(out).is_done("clip", Fingerprint.of({"end": 3}, [video]))
    assert not Manifest(out).is_done("clip", Fingerprint.of({"end": 4}, [video]))
    assert not Manifest(out).is_done("other", Fingerprint.of({"end": 3}, [video]))
    copy = Path(shutil.copy(video, tmp_path / "copy.mp4"))
    os.utime(copy, (1, 1))
    assert Manifest(out).is_done("clip", Fingerprint.of({"end": 3}, [copy]))
    video.write_bytes(b"others")
    assert not Manifest(out).is_done("clip", Fingerprint.of({"end": 3}, [video]))
    (out / "clip").rmdir()
    assert not Manifest(out).is_done("clip", Fingerprint.of({"end": 3}, [copy]))


def test_content_is_read_only_where_sizes_or_times_differ(video: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "clip").mkdir()
    manifest = Manifest(tmp_path)
    manifest.add(record_of(Fingerprint.of({}, [video])))
    read: list[Path] = []
    digest = module.file_digest
    monkeypatch.setattr(module, "file_digest", lambda path: read.append(path) or digest(path))
    assert manifest.is_done("clip", Fingerprint.of({}, [video]))
    assert read == []
    os.utime(video, (1, 1))
    assert manifest.is_done("clip", Fingerprint.of({}, [video]))
    assert read == [video]


def test_a_folder_stands_for_the_files_in_it(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "0.png").write_bytes(b"0")
    before = Fingerprint.of({}, [frames])
    (frames / ".hidden").write_bytes(b"x")
    assert Fingerprint.of({}, [frames]) == before
    (frames / "1.png").write_bytes(b"1")
    assert Fingerprint.of({}, [frames]).stamp != before.stamp
    with pytest.raises(FileNotFoundError):
        Fingerprint.of({}, [tmp_path / "nothing"])


def test_a_line_that_was_not_finished_is_no_record_and_spoils_no_other(tmp_path: Path) -> None:
    first, second = Manifest(tmp_path), Manifest(tmp_path)
    first.add({"name": "a", "status": "done"})
    with open(tmp_path / RESULTS, "ab") as file:
        file.write(b'{"name": "b", "sta')
    first.refresh()
    assert first.get("b") is None
    Manifest(tmp_path).add({"name": "c", "status": "failed"})
    Manifest(tmp_path).add({"name": "a", "status": "failed"})
    for manifest in (first, second):
        manifest.refresh()
        assert [(manifest.get(name) or {}).get("status") for name in "abc"] == ["failed", None, "failed"]


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text('{"score": 1}\n')
    with pytest.raises(InputError, match="is in the way"):
        Manifest(tmp_path)
    assert (tmp_path / RESULTS).read_text() == '{"score": 1}\n'


def test_a_place_that_cannot_be_read_or_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--out: cannot read .*file/results\.jsonl \(Not a directory\)"):
        Manifest(tmp_path / "file")
    manifest = Manifest(tmp_path)
    (tmp_path / RESULTS).mkdir()
    with pytest.raises(InputError, match=r"--out: cannot read .*results\.jsonl \(Is a directory\)"):
        Manifest(tmp_path)
    with pytest.raises(InputError, match=r"--out: cannot write .*results\.jsonl \(Is a directory\)"):
        manifest.add({"name": "a", "status": "done"})


def test_processes_that_add_at_once_lose_no_line(tmp_path: Path) -> None:
    program = (
        "import sys; from osmn_tf.jobs.manifest import Manifest; m = Manifest(sys.argv[1])\n"
        "for i in range(200): m.add({'name': sys.argv[2] + str(i), 'status': 'done', 'message': 'x' * 300})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    names = [json.loads(line)["name"] for line in (tmp_path / RESULTS).read_text().splitlines()]
    assert sorted(names) == sorted(f"{name}{index}" for name in "ab" for index in range(200))


# Claims


def test_a_claim_is_held_by_one_until_it_is_given_back(tmp_path: Path) -> None:
    claim = Claim.take(tmp_path, "clip")
    assert claim is not None
    with claim:
        assert Claim.take(tmp_path, "clip") is None
        other = Claim.take(tmp_path, "other")
        assert other is not None
        with other:
            pass
    again = Claim.take(tmp_path, "clip")
    assert again is not None
    with again:
        pass
    assert not list(tmp_path.iterdir())


def test_a_claim_whose_process_was_killed_is_followed_by_the_next(tmp_path: Path) -> None:
    program = "import os, sys; from osmn_tf.jobs.manifest import Claim; Claim.take(sys.argv[1], 'clip'); os._exit(1)"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    claim = Claim.take(tmp_path, "clip")
    assert claim is not None
    assert claim.number == 2
    with claim:
        assert Claim.take(tmp_path, "clip") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ['{"host": "elsewhere", "pid": 1, "started": "1"}', "", '{"ho'])
def test_a_claim_of_another_machine_lives_as_long_as_it_is_touched(text: str, tmp_path: Path) -> None:
    claim = Claim.take(tmp_path, "clip")
    assert claim is not None
    claim.path.write_text(text)
    assert Claim.take(tmp_path, "clip") is None
    old = time.time() - module.STALE - 1
    os.utime(claim.path, (old, old))
    later = Claim.take(tmp_path, "clip")
    assert later is not None
    with later:
        assert Claim.take(tmp_path, "clip") is None


def test_a_claim_is_touched_while_it_is_held(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    claim = Claim.take(tmp_path, "clip")
    assert claim is not None
    os.utime(claim.path, (1, 1))
    with claim:
        for _ in range(1000):
            if claim.path.stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert claim.path.stat().st_mtime > 1


def test_of_many_that_want_it_one_has_it(tmp_path: Path) -> None:
    """Threads in place of machines: who has it may not meet another, and everybody has it in the end."""
    inside, met, done = [], [], []

    def work(number: int) -> None:
        for _ in range(5):
            while (claim := Claim.take(tmp_path, "clip")) is None:
                time.sleep(0.001)
            with claim:
                inside.append(number)
                met.append(len(inside))
                time.sleep(0.001)
                inside.remove(number)
        done.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(met) == {1}
    assert sorted(done) == [0, 1, 2, 3]
