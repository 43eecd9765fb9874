"""Files that are whole or not there, and the lock that all parts share."""

import subprocess
import sys

import pytest

from dinodemo.io import files
from dinodemo.io.files import is_photo, lock, read_json, replace_folder, whole_file, write_file, write_json
from dinodemo.jobs.processes import is_locked

FLOCK = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_appears_when_it_is_whole(tmp_path, durable):
    path = tmp_path / "deep" / "a.txt"
    with whole_file(path, suffix=".mp4", durable=durable) as part:
        part.write_text("new")
        assert not path.exists() and part.suffix == ".mp4" and part.parent == path.parent
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_former_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_file(path, b"former")
    with pytest.raises(RuntimeError), whole_file(path) as part:
        part.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"former" and list(tmp_path.iterdir()) == [path]


def test_two_that_write_one_file_do_not_meet(tmp_path):
    path = tmp_path / ("x" * 230 + ".txt")
    with whole_file(path) as first, whole_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_json_is_read_as_it_was_written_and_damage_is_an_empty_object(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, "é"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, "é"]}
    for text in ("", "[1]", "{"):
        (tmp_path / "a.json").write_text(text)
        assert read_json(tmp_path / "a.json") == {}
    assert read_json(tmp_path / "none.json") == {}


def test_a_folder_takes_the_place_of_another_or_the_former_one_stays(tmp_path, monkeypatch):
    made, target = tmp_path / "made", tmp_path / "target"
    for name in ("first", "second"):
        made.mkdir()
        (made / name).touch()
        replace_folder(made, target)
        assert [p.name for p in target.iterdir()] == [name] and list(tmp_path.iterdir()) == [target]
    with pytest.raises(FileNotFoundError):
        replace_folder(made, target)
    assert [p.name for p in target.iterdir()] == ["second"] and list(tmp_path.iterdir()) == [target]


def test_a_lock_excludes_others_until_it_is_let_go(tmp_path):
    path = tmp_path / ".lock"
    with lock(path) as mine:
        assert mine and is_locked(path)
        with lock(path) as again:
            assert not again
    assert not is_locked(path)
    with pytest.raises(RuntimeError), lock(path):
        raise RuntimeError
    assert not is_locked(path) and not is_locked(tmp_path / "none")


def test_a_lock_waits_as_long_as_it_is_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(files.FileLock, "acquire", lambda _self, timeout: told.append(timeout))
    monkeypatch.setattr(files.FileLock, "release", lambda _self: None)
    with lock(tmp_path / ".lock", timeout=2.5) as mine:
        assert mine
    assert told == [2.5]


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_the_lock_and_flock_exclude_each_other(tmp_path):
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", FLOCK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert is_locked(path)
        with lock(path) as mine:
            assert not mine
        holder.communicate("")
    assert not is_locked(path)
    with lock(path) as mine:
        refused = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert mine and "BlockingIOError" in refused.stderr


@pytest.mark.parametrize(("name", "expected"), [("a.JPG", True), ("b/c.jp2", True), ("a.txt", False), ("jpg", False)])
def test_photos_are_told_by_their_suffix(name, expected):
    assert is_photo(name) is expected
