"""Runs that are killed, asked to stop, or run out of disk: what is saved stays whole."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from running import TINY, configured, rows, run

import vocoder
from vocoder.errors import InputError
from vocoder.train import train
from vocoder.training.checkpoints import complete
from vocoder.training.interruption import Interrupted, Interruption


def start(*arguments, cwd):
    """A run in the background; its output is read line by line."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "vocoder.train", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"{text!r} never came")


def common(recordings, folder):
    return [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={folder}"]


def state(run_folder):
    """Every number of the newest checkpoint, by name."""
    reader = tf.train.load_checkpoint(str(complete(run_folder)[-1] / "state"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same_state(first, second):
    a, b = state(first), state(second)
    assert a.keys() == b.keys() and len(a) > 20
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)


def curves(run_folder):
    return [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows(run_folder)]


OPTIONS = {
    "plain": [],
    "ema_accumulation_clipping_cosine": [
        "optimizer.use_ema=true", "optimizer.gradient_accumulation_steps=3",
        "optimizer.global_clipnorm=1", "schedule=cosine", "schedule.warmup_steps=2",
        "trainer.validation_metrics=[mr_stft]", "trainer.best=mr_stft",
    ],
    "loss_scale": ["trainer.precision=mixed_float16"],
    "adversarial": [
        "discriminator=small", "loss=reconstruction_gan", "trainer.discriminator_start=2",
        "trainer.discriminator_warmup=2", "optimizer.use_ema=true",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_resuming_is_exact_to_the_last_bit(options, recordings, tmp_path):
    """Ten steps straight, and five, stop, five: state, curves and best value."""
    # Curves have a point every four steps, so that the stop falls between two of them.
    base = [*common(recordings, tmp_path), *options, "trainer.log_every=4"]
    base += ["trainer.validate_every=4", "trainer.max_steps=10", "trainer.checkpoint_every=5"]
    assert run(*base, "hydra.run.dir=straight", cwd=tmp_path).returncode == 0
    # As if it had been stopped at step 5.
    shutil.copytree(tmp_path / "straight", tmp_path / "halves")
    names = [path.name for path in complete(tmp_path / "straight")]
    for path in complete(tmp_path / "halves"):
        if path.name > "step-00000005":
            shutil.rmtree(path)
    resumed = run("trainer.resume=halves", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert [path.name for path in complete(tmp_path / "halves")] == names
    assert_same_state(tmp_path / "straight", tmp_path / "halves")
    assert curves(tmp_path / "straight") == curves(tmp_path / "halves")


@pytest.mark.slow
def test_deterministic_runs_are_equal_to_the_last_digit(recordings, tmp_path):
    """In processes of their own, and in two sessions; batches are large enough for two threads."""
    base = [*common(recordings, tmp_path), "trainer.deterministic=true", "data.batch_size=4"]
    base += ["trainer.log_every=1", "trainer.max_steps=12", "trainer.checkpoint_every=6"]
    base += ["trainer.validate_every=6"]
    for name in ("first", "second"):
        done = run(*base, f"hydra.run.dir={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    # As if it had been stopped at step 6.
    shutil.copytree(tmp_path / "first", tmp_path / "halves")
    shutil.rmtree(tmp_path / "halves/checkpoints/step-00000012")
    resumed = run("trainer.resume=halves", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    for name in ("second", "halves"):
        assert curves(tmp_path / "first") == curves(tmp_path / name)
        assert_same_state(tmp_path / "first", tmp_path / name)


@pytest.mark.slow
def test_auto_resumes_or_begins_also_in_a_sweep(recordings, tmp_path):
    base = [*common(recordings, tmp_path), "trainer.resume=auto", "hydra.sweep.dir=sweep"]
    assert run("-m", *base, "seed=1,2", cwd=tmp_path).returncode == 0
    shutil.copytree(tmp_path / "sweep", tmp_path / "straight")
    for job in (0, 1):  # as if it had been stopped after two of four steps
        shutil.rmtree(tmp_path / f"sweep/{job}/checkpoints/step-00000004")
    done = run("-m", *base, "seed=1,2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for job in (0, 1):
        # Not to the last bit: TensorFlow's sums depend on where buffers lie in memory, which the
        # job before has changed. Separate processes agree to the last bit.
        again, straight = (curves(tmp_path / f"{name}/{job}") for name in ("sweep", "straight"))
        assert [row["step"] for row in again] == [row["step"] for row in straight]
        for row, expected in zip(again, straight, strict=True):
            assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-3)


SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_are_a_jobs_as_long_as_it_lasts(number, monkeypatch):
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(Interrupted) as raised, Interruption():
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert raised.value.code == 128 + number and isinstance(raised.value, KeyboardInterrupt)
    assert [signal.getsignal(n) for n in SIGNALS] == before
    # In the next job it is the first again; while that trains, it is noted. The second is final.
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with Interruption() as job:
        job.deferred = True
        os.kill(os.getpid(), number)
        assert job.code == 128 + number and not ended
        with pytest.raises(Interrupted):
            job.check()
        os.kill(os.getpid(), number)
        assert ended == [128 + number]
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_a_job_that_fails_leaves_no_handlers_behind(tmp_path):
    """Neither do two in a row, as those of a sweep are."""
    before = [signal.getsignal(n) for n in SIGNALS]
    for _ in range(2):
        with pytest.raises(InputError), Interruption() as job:
            train(configured("data=folder", "data.root=nowhere"), tmp_path / "run", [], job)
        assert [signal.getsignal(n) for n in SIGNALS] == before


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_finishes_the_step_and_saves(number, recordings, tmp_path):
    base = [
        *common(recordings, tmp_path),
        "trainer.max_steps=100000",
        "trainer.validate_every=100000",
    ]
    process = start(*base, "trainer.checkpoint_every=100000", "hydra.run.dir=r", cwd=tmp_path)
    wait_for(process, "step 3/")
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(60) == 0, rest
    assert "to go on: python -m vocoder.train trainer.resume=" in rest
    (checkpoint,) = complete(tmp_path / "r")
    step = step_of(checkpoint)
    done = run("trainer.resume=r", f"trainer.max_steps={step + 2}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "r")[-1]["step"] == str(step + 2)


# The whole command, with a signal in the midst of its first validation.
EARLY = """
import os, runpy, signal, sys, keras
evaluate = keras.Model.evaluate

def interrupted(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    return evaluate(*arguments, **options)

keras.Model.evaluate = interrupted
runpy.run_module("vocoder.train", run_name="__main__")
"""


@pytest.mark.slow
def test_a_signal_before_the_first_step_ends_with_the_same_line(recordings, tmp_path):
    base = [*common(recordings, tmp_path), "hydra.run.dir=r", "trainer.max_steps=1"]
    command = [sys.executable, "-c", EARLY, *base]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "stopped; to go on: python -m vocoder.train trainer.resume=" in done.stderr
    assert "Traceback" not in done.stderr and "validation at step 0" not in done.stdout
    done = run("trainer.resume=r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in rows(tmp_path / "r")] == ["0", "1", "1"]


@pytest.mark.slow
def test_a_second_signal_ends_at_once(recordings, tmp_path):
    base = [
        *common(recordings, tmp_path),
        "trainer.max_steps=100000",
        "trainer.validate_every=100000",
    ]
    base += ["data.batch_size=16", "data.segment_length=65536", "hydra.run.dir=r"]
    process = start(*base, "generator.upsample_initial_channel=512", cwd=tmp_path)
    wait_for(process, "step 1/")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, 128 + signal.SIGTERM)  # 0: the step was over before the second


def step_of(checkpoint):
    return int(checkpoint.name.removeprefix("step-"))


def saved_step(checkpoint):
    reader = tf.train.load_checkpoint(str(checkpoint / "state"))
    return reader.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE")


def synthesised_step(model):
    """The step of a model for inference that `saving.py` has saved: all of its biases."""
    (step,) = np.unique(vocoder.load(model).generator.get_weights()[-1])
    return step


class Saving:
    """`saving.py` on a run's folder: processes that save as fast as they can, one at a time."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("saving.py")), str(folder)],
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        if any(error):
            os.killpg(self.process.pid, signal.SIGKILL)  # one may still be saving
        self.process.wait(60)

    def kill_while_saving(self, share):
        """Kills one at some `share` of a save's time.

        Returns:
            The step it restored, and the last that it had saved.
        """
        print(file=self.process.stdin, flush=True)
        restored, pid = self.read("restored")
        begin = time.monotonic()
        (last,) = self.read("saved")
        time.sleep(share * (time.monotonic() - begin))
        os.kill(pid, signal.SIGKILL)
        for line in self.process.stdout:
            if line == "gone\n":
                return restored, last
            last = int(line.removeprefix("saved "))

    def read(self, word):
        found, *numbers = self.process.stdout.readline().split() or ["end"]
        assert found == word
        return map(int, numbers)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="TensorFlow forks well on Linux alone")
def test_killed_at_any_moment_the_newest_checkpoint_loads(tmp_path):
    """SIGKILL at 50 random moments of saving."""
    moments, newest, in_a_save = random.Random(0), 0, 0
    with Saving(tmp_path) as saving:
        for _ in range(50):
            restored, last = saving.kill_while_saving(moments.uniform(0, 1))
            assert restored == newest  # by the process before, and no partial one
            found = complete(tmp_path)
            newest = step_of(found[-1])
            assert newest in (last, last + 1)  # it may have been killed before it could tell
            for checkpoint in found:  # also those that were to be deleted
                step = step_of(checkpoint)
                assert saved_step(checkpoint) == step
                assert json.loads((checkpoint / "info.json").read_text())["step"] == step
            assert synthesised_step(found[-1]) == newest
            assert synthesised_step(tmp_path) in (newest, newest - 1)
            in_a_save += any((tmp_path / "checkpoints").glob(".step-*.partial"))
    assert in_a_save > 25


@pytest.mark.slow
def test_a_killed_run_goes_on(recordings, tmp_path):
    """The same as a user does it, with the whole command."""
    keep = ["trainer.checkpoint_every=1", "trainer.keep_checkpoints=2"]
    base = [*common(recordings, tmp_path), *keep, "trainer.validate_every=1000000"]
    base += ["trainer.resume=auto", "hydra.run.dir=r"]
    folder, moments = tmp_path / "r", random.Random(0)
    seen = 0
    for _ in range(2):
        process = start(*base, "trainer.max_steps=1000000", cwd=tmp_path)
        wait_for(process, f"step {seen + 2}/")  # so that the step before has been saved
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.wait()
        newest = complete(folder)[-1]
        assert step_of(newest) > seen
        seen = step_of(newest)
        assert saved_step(newest) == seen
        vocoder.load(newest)
        vocoder.load(folder)
    done = run(*base, f"trainer.max_steps={seen + 1}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_checkpoint_whole(recordings, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a tmpfs")
    try:
        base = [*common(recordings, tmp_path), "trainer.checkpoint_every=1"]
        base += ["trainer.max_steps=1000", "trainer.validate_every=1000"]
        base += ["trainer.keep_checkpoints=1000", "generator.upsample_initial_channel=64"]
        done = run(*base, f"hydra.run.dir={disk}/r", cwd=tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and str(disk) in errors[0], errors
        newest = complete(disk / "r")[-1]
        vocoder.load(newest)
        assert not list((disk / "r/checkpoints").glob(".*"))
        shutil.copytree(disk / "r", tmp_path / "copy", ignore=shutil.ignore_patterns("tensorboard"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    step = step_of(newest)
    done = run("trainer.resume=copy", f"trainer.max_steps={step + 1}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
