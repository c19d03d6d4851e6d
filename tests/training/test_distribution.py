"""Several replicas and several workers do what one process does with the same batches."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from running import TINY, rows, run

from configs import optimizing, trainer_config
from vocoder.errors import InputError
from vocoder.generators import HiFiGAN
from vocoder.losses import LossCfg, MultiLoss, STFTLoss, WaveformL1Loss
from vocoder.training import distribution
from vocoder.training.checkpoints import complete
from vocoder.training.distribution import build_strategy, worker
from vocoder.training.optimizer import build_optimizer
from vocoder.training.trainer import ReconstructionTrainer

HEAD = {"name": "istft", "n_fft": 16, "hop_length": 4}


def small(strategy, precision="float32", **settings):
    keras.utils.set_random_seed(3)
    config = optimizing(optimizer={"learning_rate": 1e-3} | settings)
    with strategy.scope():
        parts = [LossCfg(WaveformL1Loss(), 1, "l1"), LossCfg(STFTLoss(128, 32, 128), 0.5, "stft")]
        generator = HiFiGAN((8,), (16,), 8, head=HEAD, n_mels=10, dtype=precision)
        trainer = ReconstructionTrainer(generator)
        trainer.compile(build_optimizer(config), loss=MultiLoss(parts))
    return trainer


def batches(steps, nan_at=None):
    """`batches(shares, of)` as the pipeline's: of each batch of 8, some of the equal parts."""
    rng = np.random.default_rng(1)
    mel = rng.standard_normal((steps * 8, 16, 10)).astype(np.float32)
    wave = (0.1 * rng.standard_normal((steps * 8, 512))).astype(np.float32)
    if nan_at is not None:
        wave[8 * nan_at + 7] = np.nan  # on the last replica alone

    def dataset(shares=(0,), of=1):
        rows = np.arange(steps * 8).reshape(steps, of, 8 // of)[:, list(shares)]
        rows = rows.reshape(-1, 8 // of)
        return tf.data.Dataset.from_tensor_slices((mel[rows], wave[rows]))

    return dataset


ALL = {"global_clipnorm": 0.5, "gradient_accumulation_steps": 2, "use_ema": True}
SETTINGS = {"all": (ALL, 20, 1e-5), "loss_scale": ({"precision": "mixed_float16"}, 4, 1e-2)}


def fit(strategy, settings, steps=20, nan_at=None):
    """Logs of each step, the evaluation afterwards, and the trainer."""
    trainer, steps_logs = small(strategy, **settings), []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps_logs.append(dict(logs))
    )
    with worker(strategy, Path("run")) as here:
        train, validation = here.share(batches(steps, nan_at)), here.share(batches(3))
    trainer.fit(train, steps_per_epoch=steps, callbacks=[keep], verbose=0, shuffle=False)
    return steps_logs, trainer.evaluate(validation, steps=3, verbose=0, return_dict=True), trainer


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_two_replicas_train_and_evaluate_as_one(name, two_replicas):
    settings, steps, first = SETTINGS[name]
    strategies = tf.distribute.get_strategy(), two_replicas
    (one, evaluated, single), (two, evaluated_two, double) = (
        fit(strategy, settings, steps) for strategy in strategies
    )
    assert two[0] == pytest.approx(one[0], rel=first)
    losses = ("loss", "l1", "stft")
    for logs, expected in zip(two, one, strict=True):
        for loss in losses:
            assert logs[loss] == pytest.approx(expected[loss], rel=max(first, 1e-3))
    assert evaluated_two == pytest.approx(evaluated, rel=max(first, 1e-3))
    assert double.optimizer.iterations.numpy() == single.optimizer.iterations.numpy() > 1


def test_gradients_of_two_replicas_are_those_of_one(two_replicas):
    summed = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        trainer = small(strategy)
        before = [v.numpy() for v in trainer.trainable_variables]
        with strategy.scope():
            trainer.optimizer = keras.optimizers.SGD(
                1024.0
            )  # so that the weights' own digits don't matter
            trainer.optimizer.build(trainer.trainable_variables)
        with worker(strategy, Path("run")) as here:
            trainer.fit(here.share(batches(1)), steps_per_epoch=1, verbose=0)
        after = trainer.trainable_variables
        summed.append([(v.numpy() - b).ravel() for v, b in zip(after, before, strict=True)])
    one, two = map(np.concatenate, summed)
    assert np.linalg.norm(one - two) < 1e-5 * np.linalg.norm(one)


def test_a_nan_on_one_replica_stops_the_step_on_all(two_replicas):
    logs, _, trainer = fit(two_replicas, {}, steps=3, nan_at=1)
    assert set(trainer.nonfinite(logs[1])) == {"loss", "l1", "stft", "gradient_norm"}
    assert trainer.nonfinite(logs[2]) == []
    assert trainer.optimizer.iterations.numpy() == 2


def test_what_workers_announce_meets(two_replicas):
    trainer, seen = small(two_replicas), []
    trainer.announced = {"stopped": tf.Variable(1.0)}
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs))
    with worker(two_replicas, Path("run")) as here:
        trainer.fit(here.share(batches(1)), steps_per_epoch=1, callbacks=[keep], verbose=0)
    assert seen[0]["stopped"] == 1


# As TensorFlow 2.21 said it when a worker was killed, had ended, or had failed by itself.
GONE = (
    "Collective ops is aborted by: Error reported from /job:worker/task:1: The following tasks are "
    "unhealthy (stopped sending heartbeats):\n/job:worker/replica:0/task:1\nThe tasks have crashed",
    "Collective ops is aborted by: recvmsg:Connection reset by peer\nAdditional GRPC error "
    "information from remote target /job:worker/replica:0/task:0 while calling",
    "Collective ops is aborted by: Socket closed\nAdditional GRPC error information from remote "
    "target /job:worker/replica:0/task:0",
)
OWN = (
    "Blas xGEMM launch failed : a.shape=[1,2,3]",
    "Collective ops is aborted by: Shape mismatch in the collective instance 100. Op at device "
    "/job:worker/replica:0/task:1/device:CPU:0 expected shape [2]",
    "cuDNN launch failure : input shape([16,1,8192,80])",
    "Failed to create session.",
)


class Ended(Exception):
    """Instead of the end of the process."""


class TwoWorkers:
    class cluster_resolver:
        task_id = 0


@pytest.mark.parametrize("kind", [tf.errors.InternalError, tf.errors.UnavailableError])
@pytest.mark.parametrize("message", [*GONE, *OWN])
def test_what_an_error_says_tells_whether_a_worker_is_lost(
    kind, message, monkeypatch, capsys, tmp_path
):
    def leave(code):
        raise Ended(code)

    monkeypatch.setattr(distribution.os, "_exit", leave)
    error = kind(None, None, f"Graph execution error:\n\nDetected at node x\n{message}\n [[x]]")
    monkeypatch.setattr(distribution, "several_workers", lambda strategy: True)
    lost = message in GONE
    with pytest.raises(Ended if lost else kind) as raised, worker(TwoWorkers, tmp_path):
        raise error
    told = capsys.readouterr().err
    if lost:
        assert raised.value.args == (3,)
        (line,) = told.splitlines()
        assert line.startswith("error: another worker is gone (") and "trainer.resume=auto" in line
        assert message.splitlines()[0] in line
    else:
        assert raised.value is error and not told
    # One process alone has lost nobody.
    monkeypatch.setattr(distribution, "several_workers", lambda strategy: False)
    with pytest.raises(kind), worker(tf.distribute.get_strategy(), tmp_path):
        raise error


def test_xla_is_for_one_device(two_replicas, monkeypatch):
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: two_replicas)
    with pytest.raises(InputError, match=r"^trainer\.jit_compile: works on one"):
        build_strategy(trainer_config(strategy="mirrored", jit_compile=True))


CLUSTER = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}


@pytest.mark.parametrize(
    ("settings", "environment", "message"),
    [
        ({"strategy": "multi_worker"}, {}, "trainer.strategy: multi_worker needs a cluster"),
        ({}, {"TF_CONFIG": "{"}, "TF_CONFIG: can't be read as JSON"),
        ({}, {"TF_CONFIG": "[1]"}, "TF_CONFIG: must be"),
        ({}, {"TF_CONFIG": json.dumps(CLUSTER)}, "TF_CONFIG: task.index 2 is none of the 2"),
        ({}, {"TF_CONFIG": '{"cluster": {"ps": []}}'}, "TF_CONFIG: cluster and task must be"),
        ({}, {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "a[1-2]"},
         "trainer.strategy: no cluster of Slurm's variables"),
    ],
)  # fmt: skip
def test_mistakes(settings, environment, message, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"^{message}"):
        build_strategy(trainer_config(**settings))


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start_workers(program, cwd, count=2):
    """Processes that find each other by TF_CONFIG on this machine, with what they print."""
    addresses = [f"localhost:{port}" for port in free_ports(count)]
    found = []
    for i in range(count):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
        with (cwd / f"worker{i}.log").open("w") as log:
            found.append(
                subprocess.Popen(
                    [sys.executable, "-u", *program],
                    cwd=cwd,
                    env=os.environ | {"TF_CONFIG": json.dumps(cluster)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return found


def printed(cwd, i):
    return (cwd / f"worker{i}.log").read_text()


def files_below(folder):
    """Names without what tells one run from another."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if "tfevents" not in p.name}


@pytest.mark.slow
def test_two_workers_train_as_one_process(recordings, tmp_path):
    """Losses, gradients' norms and evaluation of 20 steps; then one process goes on alone."""
    command = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    command += ["data.validation_segments=4", "trainer.max_steps=20", "trainer.validate_every=10"]
    command += ["optimizer.use_ema=true", "optimizer.gradient_accumulation_steps=2"]
    command += ["trainer.validation_metrics=[mr_stft]", "trainer.best=mr_stft"]
    # Sums in another order differ in the last digit, and training makes more of it: the less, the
    # more examples a batch has and the shorter the steps are.
    command += ["optimizer.global_clipnorm=1", "data.batch_size=8", "optimizer.learning_rate=5e-5"]
    assert run(*command, "hydra.run.dir=one", cwd=tmp_path).returncode == 0
    workers = start_workers(["-m", "vocoder.train", *command, "hydra.run.dir=two"], tmp_path)
    assert [process.wait(240) for process in workers] == [0, 0], printed(tmp_path, 0)
    one, two = (rows(tmp_path / name) for name in ("one", "two"))
    for expected, row in zip(one, two, strict=True):
        first = row["step"] in "01"
        assert (row["step"], row["split"]) == (expected["step"], expected["split"])
        names = ["loss", "waveform", "mel", "stft"]
        names += ["gradient_norm"] if first and row["split"] == "train" else []
        names += ["mr_stft"] if row["split"] == "validation" else []
        for name in names:
            found, wanted = float(row[name]), float(expected[name])
            assert found == pytest.approx(wanted, rel=1e-5 if first else 1e-3), (row, name)
    # Only the first of them writes, and to the same places as a process alone; the other is silent.
    assert files_below(tmp_path / "two") == files_below(tmp_path / "one")
    assert "step 20/20" in printed(tmp_path, 0) and "step" not in printed(tmp_path, 1)
    alone = run("trainer.resume=two", "trainer.max_steps=22", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert rows(tmp_path / "two")[-1]["step"] == "22"


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_worker_ends_the_others_which_go_on_together(lost, recordings, tmp_path):
    command = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    command += ["data.validation_segments=4", "trainer.validate_every=1000000"]
    command += ["trainer.checkpoint_every=5", "trainer.resume=auto", "hydra.run.dir=r"]
    command = ["-m", "vocoder.train", *command]
    workers = start_workers([*command, "trainer.max_steps=1000000"], tmp_path)
    while not (newest := complete(tmp_path / "r")) and workers[0].poll() is None:
        time.sleep(0.1)
    workers[lost].send_signal(signal.SIGKILL)
    assert workers[1 - lost].wait(60) != 0
    (line,) = [s for s in printed(tmp_path, 1 - lost).splitlines() if s.startswith("error: ")]
    assert line.startswith("error: another worker is gone") and "trainer.resume=auto" in line
    newest = complete(tmp_path / "r")[-1]
    step = int(newest.name.removeprefix("step-")) + 2
    workers = start_workers([*command, f"trainer.max_steps={step}"], tmp_path)
    assert [process.wait(240) for process in workers] == [0, 0], printed(tmp_path, 0)
    assert complete(tmp_path / "r")[-1].name == f"step-{step:08d}"
    assert rows(tmp_path / "r")[-1]["step"] == str(step)


UPSTREAM = """
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras, numpy as np
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
print("has begun", flush=True)
x = np.zeros((8, 4), "float32")
model.fit(tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(4), verbose=0)
print("has trained", flush=True)
"""


@pytest.mark.slow
def test_keras_still_needs_what_the_trainer_steps_around(tmp_path):
    """Once this fails, `Trainer._maybe_symbolic_build` and `_function` can go: see keras#20585."""
    workers = start_workers(["-c", UPSTREAM], tmp_path)
    for process in workers:
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:  # one of them waits for the other, which has failed
            process.kill()
            process.wait()
    said = [printed(tmp_path, i) for i in (0, 1)]
    assert all("has begun" in text for text in said), said
    assert not any("has trained" in text for text in said), "keras-team/keras#20585 is solved"
    # Reducing what replicas have each to one value, as `_maybe_symbolic_build` and the step do.
    assert any("Attempt to convert a value (PerReplica" in text for text in said), said


SWEEP = """
import runpy, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
runpy.run_module("vocoder.train", run_name="__main__")
"""


@pytest.mark.slow
def test_two_jobs_of_a_sweep_on_two_replicas(recordings, tmp_path):
    """The second does what it does alone, and no validation warns of data that has run out."""
    command = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    command += ["trainer.strategy=mirrored", "data.validation_segments=4", "trainer.max_steps=3"]
    for more in (["-m", "seed=1,2", "hydra.sweep.dir=sweep"], ["seed=2", "hydra.run.dir=alone"]):
        program = [sys.executable, "-c", SWEEP, *more, *command]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "ran out of data" not in done.stderr
    expected = rows(tmp_path / "alone")
    assert [row["step"] for row in expected] == ["0", "1", "2", "2", "3", "3"]
    for row, alone in zip(rows(tmp_path / "sweep/1"), expected, strict=True):
        assert (row["step"], row["split"]) == (alone["step"], alone["split"])
        for name in ("loss", "waveform", "mel", "stft"):
            assert float(row[name]) == pytest.approx(float(alone[name]), rel=1e-3)
    assert rows(tmp_path / "sweep/0") != rows(tmp_path / "sweep/1")


SLURM = {
    "SLURM_PROCID": "2",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}


class Meeting:
    num_replicas_in_sync = 1

    def __init__(self, resolver):
        self.resolver = resolver


def test_slurm_makes_the_cluster(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    # The resolver alone: there are no such hosts to meet.
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", Meeting)
    resolver = build_strategy(trainer_config()).resolver
    hosts = resolver.cluster_spec().as_dict()["worker"]
    assert [host.split(":")[0] for host in hosts] == ["node07", "node07", "node08"]
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)
