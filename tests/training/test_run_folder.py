"""Run folders as others leave them: in use, damaged, gone on from an earlier checkpoint."""

import json
import os
import signal
import subprocess
import sys

import pytest

from vocoder.errors import InputError
from vocoder.training import run_folder
from vocoder.training.run_folder import complete, examine, generators_of, locked, set_aside


def checkpoint(run, step):
    """What a checkpoint looks like from outside."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    for name in ("state.index", "state.data-00000-of-00001", "generator.keras"):
        (folder / name).write_text(f"{name} of {step}")
    (folder / "info.json").write_text(json.dumps({"step": step, "measure": "loss", "value": 1.5}))
    return folder


def steps_of(run):
    return [int(path.name.removeprefix("step-")) for path in complete(run)]


HOLDING = """
import sys
from pathlib import Path
from vocoder.training.run_folder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that trains in `tmp_path`, as far as others can see."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.stdin.close()
    process.wait()


def test_a_folder_is_one_run_s_until_it_ends_or_is_killed(holder, tmp_path):
    expected = rf"^{tmp_path}: another run is writing here .host .*, pid {holder.pid}"
    for _ in range(2):  # to ask is not to take
        with pytest.raises(InputError, match=expected), locked(tmp_path):
            pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    for _ in range(2):  # as the next job of a sweep, in this process
        with locked(tmp_path):
            assert f"pid {os.getpid()}" in (tmp_path / ".lock").read_text()


def test_a_lock_leaves_nothing_behind_where_nothing_was_begun(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "run"):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_lock_follows_no_link_and_waits_for_no_pipe(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "run/.lock").symlink_to("../mine")
    with pytest.raises(InputError, match=r"run/\.lock: can't be written"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "mine").read_text() == "precious"
    (tmp_path / "run/.lock").unlink()
    os.mkfifo(tmp_path / "run/.lock")
    with pytest.raises(InputError, match=r"run/\.lock: no regular file"), locked(tmp_path / "run"):
        pass


def test_where_there_are_no_locks_a_run_goes_on(tmp_path, monkeypatch, caplog):
    def none(descriptor, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", none)
    with locked(tmp_path):
        assert "No locks available" in caplog.text


def without(name):
    return lambda folder: (folder / name).unlink()


def holding(text):
    return lambda folder: (folder / "info.json").write_bytes(text)


def a_file(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("no folder")


def a_pipe(folder):
    (folder / "info.json").unlink()
    os.mkfifo(folder / "info.json")


DAMAGE = {
    "no_info": (without("info.json"), "info.json: no such file"),
    "no_index": (without("state.index"), "state.index: no such file"),
    "no_data": (without("state.data-00000-of-00001"), "state.data-00000-of-00001: no such file"),
    "empty_info": (holding(b""), "info.json: damaged"),
    "list": (holding(b"[]"), "info.json: damaged"),
    "text": (holding(b'"step"'), "info.json: damaged"),
    "binary": (holding(bytes(range(256))), "info.json: damaged"),
    "deep": (holding(b"[" * 60_000), "info.json: damaged"),
    "no_step": (holding(b'{"measure": "loss", "value": 1}'), "info.json: damaged"),
    "step_of_text": (holding(b'{"step": "5", "value": 1}'), "info.json: damaged"),
    "other_step": (holding(b'{"step": 4, "value": 1}'), "info.json: says that this is step 4"),
    "huge_step": (holding(b'{"step": 1' + b"0" * 5000 + b"}"), "info.json: damaged"),
    "measure": (holding(b'{"step": 5, "measure": {}}'), "info.json: damaged"),
    "value": (holding(b'{"step": 5, "measure": "loss", "value": NaN}'), "info.json: damaged"),
    "seconds": (holding(b'{"step": 5, "value": 1, "seconds": "x"}'), "info.json: damaged"),
    "file": (a_file, "step-00000005: no folder"),
    "pipe": (a_pipe, "info.json: no regular file"),
    "name": (lambda f: f.rename(f.with_name("step-abc")), "step-abc: no checkpoint"),
    "huge_name": (lambda f: f.rename(f.with_name("step-" + "9" * 200)), "9: no checkpoint"),
    "fraction": (lambda f: f.rename(f.with_name("step-5.0")), "step-5.0: no checkpoint"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_not_whole_is_told_and_the_others_are_found(case, tmp_path):
    damage, message = DAMAGE[case]
    for step in (3, 5, 4):
        checkpoint(tmp_path, step)
    damage(tmp_path / "checkpoints/step-00000005")
    whole, (fault,) = examine(tmp_path)
    assert [path.name for path in whole] == ["step-00000003", "step-00000004"]
    assert message in fault and fault.startswith(str(tmp_path / "checkpoints/step-"))
    assert "\n" not in fault


def test_steps_of_any_length_are_in_order(tmp_path):
    for step in (99_999_999, 100_000_000, 5):
        checkpoint(tmp_path, step)
    assert steps_of(tmp_path) == [5, 99_999_999, 100_000_000]


def test_a_folder_that_can_not_be_listed_is_no_empty_one(tmp_path, monkeypatch):
    assert complete(tmp_path) == [] and complete(tmp_path / "nowhere") == []
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InputError, match=r"checkpoints: can't be read .Not a directory"):
        complete(tmp_path)

    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run_folder.os, "listdir", refuse)
    with pytest.raises(InputError, match=r"checkpoints: can't be read .Permission denied"):
        complete(tmp_path)


def test_an_abandoned_future_becomes_a_run_of_its_own(tmp_path):
    for step in (2, 4, 6):
        checkpoint(tmp_path, step)
    (tmp_path / "samples/step-00000004").mkdir(parents=True)
    files = ["config.yaml", "overrides.yaml", "losses.csv", "generator.keras"]
    files += ["samples/step-00000004/a.wav"]
    for name in files:
        (tmp_path / name).write_text(name)
    assert set_aside(tmp_path, 6) is None
    aside = set_aside(tmp_path, 2)
    assert steps_of(tmp_path) == [2] and steps_of(aside) == [4, 6]
    assert all((aside / name).read_text() == name for name in files)
    # The newest generator is that of the checkpoint that is gone on from.
    assert next(generators_of(tmp_path)).read_text() == "generator.keras of 2"
    checkpoint(tmp_path, 3)
    again = set_aside(tmp_path, 2)
    assert again != aside and steps_of(again) == [3] and steps_of(aside) == [4, 6]


def test_a_new_run_takes_nothing_of_an_earlier_one_for_its_own(tmp_path):
    checkpoint(tmp_path, 2)
    (checkpoint(tmp_path, 4) / "info.json").unlink()
    aside = set_aside(tmp_path, 0)
    assert examine(tmp_path) == ([], []) and steps_of(aside) == [2]
    assert (aside / "checkpoints/step-00000004").is_dir()  # damaged or not, it may be of use


def test_generators_are_the_run_s_and_then_those_of_checkpoints(tmp_path):
    assert list(generators_of(tmp_path)) == []
    folders = [checkpoint(tmp_path, step) for step in (2, 4, 6)]
    (tmp_path / "generator.keras").write_text("")
    (folders[1] / "generator.keras").unlink()
    found = [tmp_path, folders[2], folders[0]]
    assert [path.parent for path in generators_of(tmp_path)] == found
    assert [path.parent for path in generators_of(folders[0])] == [folders[0]]
