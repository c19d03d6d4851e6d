"""Runs that are killed, asked to stop, or run out of disk: what is saved stays whole."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from running import TINY, rows, run

import vocoder
from vocoder.training.checkpoints import complete


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
        "trainer.ema_momentum=0.9", "trainer.gradient_accumulation_steps=3",
        "trainer.global_clipnorm=1", "trainer.schedule=cosine", "trainer.warmup_steps=2",
        "trainer.validation_metrics=[mr_stft]", "trainer.best=mr_stft",
    ],
    "loss_scale": ["trainer.precision=mixed_float16"],
    "adversarial": [
        "discriminator=small", "loss=reconstruction_gan", "trainer.discriminator_start=2",
        "trainer.discriminator_warmup=2", "trainer.ema_momentum=0.9",
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
    assert run(*base, "hydra.run.dir=halves", cwd=tmp_path).returncode == 0
    # As if it had been stopped at step 5.
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
    step = int(checkpoint.name.removeprefix("step-"))
    done = run("trainer.resume=r", f"trainer.max_steps={step + 2}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "r")[-1]["step"] == str(step + 2)


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


@pytest.mark.slow
def test_killed_at_any_moment_the_newest_checkpoint_loads(recordings, tmp_path):
    """SIGKILL at 50 random moments around saving, in one process after the other."""
    keep = ["trainer.checkpoint_every=1", "trainer.keep_checkpoints=2", "trainer.samples=1"]
    base = [*common(recordings, tmp_path), *keep, "trainer.validate_every=1000000"]
    base += ["trainer.max_steps=1000000", "trainer.resume=auto", "hydra.run.dir=r"]
    folder, moments = tmp_path / "r", random.Random(0)
    seen = 0
    for _ in range(int(os.environ.get("VOCODER_KILLS", "5"))):
        process = start(*base, cwd=tmp_path)
        # Forked saves would be quicker to kill; a real process is what is killed in real life.
        wait_for(process, "step ")
        time.sleep(moments.uniform(0, 1.0))
        process.kill()
        process.wait()
        found = complete(folder)
        if not found:
            continue
        newest = int(found[-1].name.removeprefix("step-"))
        assert newest >= seen  # what was saved once is never lost
        seen = newest
        assert (
            tf.train.load_checkpoint(str(found[-1] / "state")).get_tensor(
                "step/.ATTRIBUTES/VARIABLE_VALUE"
            )
            == newest
        )
        vocoder.load(found[-1])
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
        base = [*common(recordings, tmp_path), "trainer.checkpoint_every=1", "trainer.samples=0"]
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
    step = int(newest.name.removeprefix("step-"))
    done = run("trainer.resume=copy", f"trainer.max_steps={step + 1}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
