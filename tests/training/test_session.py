"""Sessions of a run in this process; whole runs are in tests/test_train.py."""

import contextlib
import logging
import os

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from odd import OddGenerator

from configs import optimizing
from vocoder.audio.settings import AudioConfig
from vocoder.errors import InputError
from vocoder.evaluation.metric import Measure, Metric
from vocoder.losses import LossCfg, MultiLoss, WaveformL1Loss
from vocoder.training import session as session_module
from vocoder.training.checkpoints import Checkpoints, complete
from vocoder.training.interruption import Interrupted, Interruption
from vocoder.training.log import RunLog, read_losses
from vocoder.training.optimizer import build_optimizer
from vocoder.training.session import Session
from vocoder.training.trainer import ReconstructionTrainer
from vocoder.training.validation import Samples, UtteranceMetrics

AUDIO = AudioConfig(n_fft=64, hop_length=16, win_length=64, n_mels=10)
MARK = 3.0  # a sample that makes a step go wrong


class Poisoned(keras.losses.Loss):
    """The mean error; for a marked batch `forward` times it, and `backward` times its gradient."""

    def __init__(self, forward=1.0, backward=1.0):
        super().__init__(name="poisoned")
        self.forward = forward
        self.backward = backward

    def call(self, y_true, y_pred):
        marked = tf.reduce_any(y_true == MARK)

        @tf.custom_gradient
        def poison(value):
            factor = tf.where(marked, self.backward, 1.0)
            return value * tf.where(marked, self.forward, 1.0), lambda gradient: gradient * factor

        return poison(tf.reduce_mean(tf.abs(y_true - y_pred), axis=-1))


NAN, INFINITY = float("nan"), float("inf")
L1 = [LossCfg(WaveformL1Loss(), 1.0, "l1")]


def train(
    folder, marked=(), parts=L1, metrics=(), measure=("loss", False), interruption=None,
    callbacks=(), utterances=1, samples=(), **settings,
):  # fmt: skip
    """Eight steps, of which those in `marked` (from 1 on) meet a marked sample.

    A folder that has a checkpoint is gone on from. Of `samples`, (name, frames) of each, something
    is to be heard and seen.
    """
    rng = np.random.default_rng(0)
    mel = rng.standard_normal((8, 2, 8, 10)).astype(np.float32)
    wave = (0.1 * rng.standard_normal((8, 2, 128))).astype(np.float32)
    for step in marked:
        wave[step - 1, 0, 0] = MARK
    keras.utils.set_random_seed(0)
    trainer = ReconstructionTrainer(OddGenerator(adds=False, idle=False))
    multi = MultiLoss(parts)
    config = optimizing(
        **{"max_steps": 8, "log_every": 2, "validate_every": 4, "checkpoint_every": 2}
        | {"samples": 0, "best": measure[0]}
        | settings
    )
    trainer.compile(build_optimizer(config), loss=multi)
    config = config.trainer
    checkpoints = Checkpoints(folder, trainer, config.keep_checkpoints, True, *measure)
    if complete(folder):
        checkpoints.restore(complete(folder)[-1])
    utterances = [("a.wav", {"mel": mel[0, 0]}, np.zeros(128, np.float32))] * utterances
    measured = UtteranceMetrics(metrics, utterances, sample_rate=100)
    names = ["loss", *(part.name for part in multi.parts)]
    log = RunLog(folder, names, trainer.step, metrics=measured.names)
    heard = [(n, {"mel": mel[0, 0, :f]}, wave[0, 0, : 16 * f]) for n, f in samples]
    session = Session(
        config, log, checkpoints,
        tf.data.Dataset.from_tensors((mel[0], np.abs(wave[0]).clip(0, 0.5))), None,
        measured, Samples(heard, AUDIO, log),
        lambda i: [f"{i}a.wav", f"{i}\udce9.wav"], interruption,
    )  # fmt: skip
    batches = tf.data.Dataset.from_tensor_slices((mel, wave)).repeat()
    session.fit(trainer, batches.skip, callbacks)
    return trainer, session


class Each(keras.callbacks.Callback):
    """What each step says, and what is to be done after it (from 1 on)."""

    def __init__(self, after=lambda step: None):
        super().__init__()
        self.after = after
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        self.after(self.model.step)


class Told(Metric):
    """What it is told to say, of one utterance after the other."""

    measures = (Measure("told", "told", "", True),)

    def __init__(self, *values):
        self.values = list(values)

    def compute(self, reference, synthesised, sample_rate):
        assert len(reference) == len(synthesised) == 128
        return (self.values.pop(0),)


def points(folder, split="train", name="loss"):
    return {
        int(row["step"]): float(row[name]) for row in read_losses(folder) if row["split"] == split
    }


PARTS = {
    "nan_in_a_part": (Poisoned(forward=NAN), 1.0, "poisoned"),
    "infinity_in_a_part": (Poisoned(forward=INFINITY), 0.5, "poisoned"),
    "nan_in_a_watched_part": (Poisoned(forward=NAN), 0.0, "poisoned"),
    "nan_in_the_gradient_alone": (Poisoned(backward=NAN), 1.0, "gradient_norm"),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_step_gone_wrong_is_skipped_and_told(case, tmp_path, caplog):
    loss, weight, culprit = PARTS[case]
    parts = [LossCfg(WaveformL1Loss(), 1.0, "l1"), LossCfg(loss, weight)]
    with caplog.at_level(logging.WARNING, logger="vocoder"):
        trainer, _ = train(tmp_path, {3}, parts)
    (line,) = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert line.startswith("step 3: ") and culprit in line
    assert "2a.wav, 2\\xe9.wav" in line  # a name need not be text
    assert int(trainer.optimizer.iterations) == 7
    assert all(np.isfinite(v).all() for v in map(np.asarray, trainer.trainable_variables))
    for row in read_losses(tmp_path):
        assert np.isfinite(float(row["loss"])) and np.isfinite(float(row["poisoned"]))


@pytest.mark.parametrize(
    ("log_every", "validate_every", "max_steps", "marked", "expected"),
    [
        (100, 2, 5, (), {2: [1, 2], 4: [3, 4], 5: [5]}),
        (3, 4, 8, (), {3: [1, 2, 3], 4: [4], 6: [5, 6], 8: [7, 8]}),
        (2, 5, 8, {1, 4}, {2: [2], 4: [3], 5: [5], 6: [6], 8: [7, 8]}),
        (2, 3, 8, {3, 4, 8}, {2: [1, 2], 6: [5, 6], 8: [7]}),
    ],
)
def test_every_step_is_in_one_point(
    log_every, validate_every, max_steps, marked, expected, tmp_path
):
    each = Each()
    intervals = {"log_every": log_every, "validate_every": validate_every}
    train(
        tmp_path, marked, [LossCfg(Poisoned(NAN), 1.0)], callbacks=[each], max_steps=max_steps,
        checkpoint_every=100, **intervals,
    )  # fmt: skip
    found = points(tmp_path)
    assert found == {
        step: pytest.approx(np.mean([each.losses[i - 1] for i in of]), rel=1e-5)
        for step, of in expected.items()
    }


class Clock:
    """Instead of the module `time`: seconds that pass when they are told to."""

    def __init__(self):
        self.now = 1e6

    def monotonic(self):
        return self.now


COSINE = {
    "schedule": {"name": "cosine", "warmup_steps": 2, "final_rate": 0.1},
    "optimizer": {"learning_rate": 1e-3},
}


def test_minutes_end_the_run_and_its_schedule(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(session_module, "time", clock)

    def tick(step):
        clock.now += 12  # six steps within 1.2 minutes

    class Slow(Told):
        def compute(self, *arguments):
            clock.now += 1000  # which is no training
            return super().compute(*arguments)

    def go_on(**settings):
        rated = [Slow(*range(20))]
        each = Each(tick)  # after the session, so that a step's time is seen at the next
        often = {"log_every": 1, "validate_every": 3, "metrics": rated, "callbacks": [each]}
        return train(tmp_path, **often, **COSINE, **settings)

    trainer, session = go_on(max_steps=1000, max_minutes=1.2)
    rates = points(tmp_path, name="learning_rate")
    assert list(rates) == [1, 2, 3, 4, 5, 6, 7] and not session.stopped
    # The warm-up has two steps; then the rate falls by the minutes, to its end.
    falling = list(rates.values())[2:]
    assert falling == sorted(falling, reverse=True) and falling[0] > 5e-4
    assert rates[7] == pytest.approx(1e-4)
    assert trainer.seconds == pytest.approx(84)
    # More minutes go on, from those that are over.
    go_on(max_steps=1000, max_minutes=2.6)
    rates = points(tmp_path, name="learning_rate")
    assert list(rates) == list(range(1, 15))
    assert 1e-4 < rates[8] < 9e-4 and rates[14] == pytest.approx(1e-4)


def test_minutes_that_do_not_end_the_run_change_nothing(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(session_module, "time", clock)
    each = Each(lambda step: setattr(clock, "now", clock.now + (8 if step == 1 else 9)))
    train(tmp_path / "a", callbacks=[each], log_every=1, max_minutes=1.25, **COSINE)
    train(tmp_path / "b", log_every=1, **COSINE)
    first, second = (points(tmp_path / name, name="learning_rate") for name in "ab")
    assert first == second and len(first) == 8


@pytest.mark.parametrize(("signal", "saved"), [(3, 3), (4, 5)])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(signal, saved, tmp_path):
    intervals = {"log_every": 3, "validate_every": 3, "checkpoint_every": 100}
    straight, _ = train(tmp_path / "straight", **intervals, **COSINE)
    signals = Interruption()
    each = Each(lambda step: setattr(signals, "code", 143) if step == signal else None)
    halves = tmp_path / "halves"
    _, session = train(halves, interruption=signals, callbacks=[each], **intervals, **COSINE)
    assert session.stopped and complete(halves)[-1].name == f"step-{saved:08d}"
    other, session = train(halves, **intervals, **COSINE)
    assert not session.stopped
    expected, found = (points(folder) for folder in (tmp_path / "straight", halves))
    assert list(expected) == [3, 6, 8] and list(found) == sorted({3, 6, 8, saved})
    if saved == 5:  # a point of its own
        found[6] = (2 * found.pop(5) + found[6]) / 3
    assert found == {step: pytest.approx(value, rel=1e-4) for step, value in expected.items()}
    expected, found = (points(folder, "validation") for folder in (tmp_path / "straight", halves))
    assert found == {step: pytest.approx(value, rel=1e-4) for step, value in expected.items()}
    for a, b in zip(straight.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class Asking(Told):
    """Is interrupted while it rates an utterance, by its number from 0 on."""

    def __init__(self, signals, number, *values):
        super().__init__(*values)
        self.signals = signals
        self.left = number

    def compute(self, *arguments):
        if self.left == 0:
            self.signals.code = 143
        self.left -= 1
        return super().compute(*arguments)


RATED = {
    "utterances": 2, "measure": ("told", True), "validate_every": 4, "checkpoint_every": 100,
}  # fmt: skip


def test_a_run_interrupted_in_its_first_validation_is_saved(tmp_path):
    signals = Interruption()
    with pytest.raises(Interrupted) as raised:
        train(tmp_path, metrics=[Asking(signals, 0, 1, 1)], interruption=signals, **RATED)
    assert raised.value.code == 143
    assert [path.name for path in complete(tmp_path)] == ["step-00000000"]
    assert points(tmp_path, "validation") == {}
    train(tmp_path, metrics=[Told(1, 1, 2, 2, 3, 3)], **RATED)
    assert list(points(tmp_path, "validation")) == [0, 4, 8]


def test_an_interrupted_validation_is_done_again(tmp_path):
    told = [1, 1, 5, 5, 3, 3]
    train(tmp_path / "straight", metrics=[Told(*told)], **RATED)
    signals, halves = Interruption(), tmp_path / "halves"
    asking = Asking(signals, 2, *told)
    _, session = train(halves, metrics=[asking], interruption=signals, **RATED)
    assert session.stopped and list(points(halves, "validation")) == [0]
    assert [path.name for path in complete(halves)] == ["step-00000004"]
    # Once more, before there is a step; then to the end, whose validation is not interrupted.
    signals = Interruption()
    with pytest.raises(Interrupted):
        train(halves, metrics=[Asking(signals, 0, 5, 5)], interruption=signals, **RATED)
    signals = Interruption()
    asking = Asking(signals, 2, *told[2:])
    _, session = train(halves, metrics=[asking], interruption=signals, **RATED)
    assert not session.stopped and float(session.checkpoints.best) == 5
    found, expected = (points(tmp_path / n, "validation", "told") for n in ("halves", "straight"))
    assert found == expected == {0: 1, 4: 5, 8: 3}
    assert [p.name for p in complete(halves)] == [p.name for p in complete(tmp_path / "straight")]


def test_an_output_that_nobody_reads_ends_the_run_with_its_work_saved(tmp_path):
    read, write = os.pipe()
    signals = Interruption()
    leave = Each(lambda step: os.close(read) if step == 2 else None)
    with open(write, "w") as closed, contextlib.redirect_stdout(closed):
        _, session = train(tmp_path, interruption=signals, checkpoint_every=100, callbacks=[leave])
        print("into nothing", flush=True)
    assert signals.code == 141 and session.stopped
    assert [path.name for path in complete(tmp_path)] == ["step-00000004"]
    # If nobody reads from the beginning, it ends there.
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed, contextlib.redirect_stdout(closed):
        with pytest.raises(Interrupted) as raised:
            train(tmp_path / "other", interruption=Interruption())
        print("into nothing", flush=True)
    assert raised.value.code == 141
    assert [path.name for path in complete(tmp_path / "other")] == ["step-00000000"]


def test_a_skipped_step_changes_neither_weights_nor_optimizer(tmp_path):
    parts = [LossCfg(Poisoned(NAN), 1.0)]
    trainer, _ = train(tmp_path, set(), parts, optimizer={"use_ema": True, "ema_momentum": 0.9})
    before = [np.array(v) for v in (*trainer.trainable_variables, *trainer.optimizer.variables)]
    wave = np.full((2, 128), MARK, np.float32)
    logs = trainer.train_step((np.zeros((2, 8, 10), np.float32), wave))
    assert set(trainer.nonfinite(logs)) >= {"loss", "poisoned"}
    after = (*trainer.trainable_variables, *trainer.optimizer.variables)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_too_many_in_a_row_end_the_run(tmp_path):
    parts = [LossCfg(Poisoned(NAN), 1.0)]
    with pytest.raises(InputError, match=r"max_bad_steps: more than 2 .*step 7: loss.*6a\.wav"):
        train(tmp_path, {3, 5, 6, 7}, parts, max_bad_steps=2)
    # The last good checkpoint is there, and nothing after it.
    assert [path.name for path in complete(tmp_path)][-1] == "step-00000006"
    train(tmp_path / "fewer", {3, 5, 6}, [LossCfg(Poisoned(NAN), 1.0)], max_bad_steps=2)


def test_a_metric_tells_the_best(tmp_path, capsys):
    told = Told(9.0, 1.0, NAN, 2.0, 2.0, 1.5, NAN, 1.0, 1.0)  # at steps 0 to 8
    often = {"validate_every": 1, "checkpoint_every": 100, "keep_checkpoints": 1}
    parts = [LossCfg(WaveformL1Loss(), 1.0, "l1")]
    _, session = train(tmp_path, set(), parts, [told], ("told", True), **often)
    # Before the first step nothing is saved, so that value counts for nothing.
    assert [path.name for path in complete(tmp_path)] == ["step-00000003", "step-00000008"]
    assert float(session.checkpoints.best) == 2.0
    column = [row["told"] for row in read_losses(tmp_path) if row["split"] == "validation"]
    assert column == ["9", "1", "", "2", "2", "1.5", "", "1", "1"]
    assert capsys.readouterr().out.count("told nan") == 2


def test_a_sample_may_be_shorter_than_the_window_of_its_mel(tmp_path, caplog):
    samples = [("1.wav", 1), ("2.wav", 2)]
    _, session = train(tmp_path, set(), L1, samples=samples, validate_every=8)
    lengths = [len(soundfile.read(synthesised)[0]) for _, synthesised in session.samples.paths]
    assert lengths == [16, 32] and not caplog.records


def test_a_sample_that_can_not_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/step-00000004").write_text("no folder")
    _, session = train(tmp_path, set(), L1, samples=[("\x1b.wav", 4)])
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("sample of \\x1b.wav at step 4 is left out: ")
    assert "can't be written" in line
    assert [len(session.samples.paths), complete(tmp_path)[-1].name] == [1, "step-00000008"]
    steps = {path.parent.name for path in tmp_path.rglob("*_synthesised.wav")}
    assert steps == {"step-00000000", "step-00000008"}


def test_callbacks_of_keras_see_every_validation_as_an_epoch(tmp_path):
    seen = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda i, logs: seen.append((i, dict(logs))))
    often = {"validate_every": 3, "metrics": [Told(*range(9))]}
    train(tmp_path, callbacks=[note], **often)
    assert [i for i, _ in seen] == [0, 1, 2]
    points_of = points(tmp_path, "validation")
    assert [logs["val_loss"] for _, logs in seen] == pytest.approx(
        [points_of[step] for step in (3, 6, 8)], rel=1e-6
    )
    assert [logs["val_told"] for _, logs in seen] == [1, 2, 3]
    # In an epoch's logs are the means over its steps.
    trained = points(tmp_path)
    assert list(trained) == [2, 3, 4, 6, 8]
    assert seen[0][1]["loss"] == pytest.approx((2 * trained[2] + trained[3]) / 3, rel=1e-5)


def test_a_callback_may_end_the_run_which_then_is_saved(tmp_path):
    stop = keras.callbacks.EarlyStopping("val_told", patience=1, mode="max")
    told = Told(0.0, 3.0, 2.0, 1.0, 0.0)
    intervals = {"validate_every": 1, "checkpoint_every": 100, "log_every": 100}
    trainer, session = train(tmp_path, metrics=[told], callbacks=[stop], **intervals)
    assert trainer.step == 2 and not session.stopped
    assert complete(tmp_path)[-1].name == "step-00000002"
    trainer, _ = train(tmp_path, metrics=[Told(*range(9))], **intervals)
    assert trainer.step == 8
