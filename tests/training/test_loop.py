"""What happens between the steps, in this process; whole runs are in tests/test_train.py."""

import logging

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from vocoder.config import AudioConfig, TrainerConfig
from vocoder.errors import InputError
from vocoder.evaluation.metric import Measure, Metric
from vocoder.generators import HiFiGAN
from vocoder.losses import LossCfg, MultiLoss, WaveformL1Loss
from vocoder.training.checkpoints import Checkpoints, complete
from vocoder.training.log import RunLog, read_losses
from vocoder.training.loop import TrainingLoop
from vocoder.training.optimizer import build_optimizer
from vocoder.training.trainer import ReconstructionTrainer
from vocoder.training.validation import Ratings

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


def train(folder, marked, parts, metrics=(), measure=("loss", False), samples=(), **settings):
    """Eight steps, of which those in `marked` (from 1 on) meet a marked sample.

    Of `samples`, (name, frames) of each, something is to be heard and seen.
    """
    rng = np.random.default_rng(0)
    mel = rng.standard_normal((8, 2, 8, 10)).astype(np.float32)
    wave = (0.1 * rng.standard_normal((8, 2, 128))).astype(np.float32)
    for step in marked:
        wave[step - 1, 0, 0] = MARK
    generator = HiFiGAN((4,), (8,), 8, istft_n_fft=16, istft_hop_length=4, audio=vars(AUDIO))
    trainer = ReconstructionTrainer(generator)
    multi = MultiLoss(parts)
    config = TrainerConfig(
        **{"max_steps": 8, "log_every": 2, "validate_every": 4, "checkpoint_every": 2}
        | {"samples": 0, "best": measure[0]}
        | settings
    )
    trainer.compile(build_optimizer(config), loss=multi)
    checkpoints = Checkpoints(folder, trainer, config.keep_checkpoints, True, *measure)
    utterances = [("a.wav", mel[0, 0], np.zeros(128, np.float32))]
    ratings = Ratings(metrics, utterances, sample_rate=100)
    log = RunLog(folder, ["loss", *(part.name for part in multi.parts)], metrics=ratings.names)
    validation = tf.data.Dataset.from_tensors((mel[0], np.abs(wave[0]).clip(0, 0.5)))
    loop = TrainingLoop(
        config, AUDIO, log, checkpoints, validation,
        [(name, mel[0, 0, :frames], wave[0, 0, : 16 * frames]) for name, frames in samples],
        lambda i: [f"{i}a.wav", f"{i}\udce9.wav"], ratings,
    )  # fmt: skip
    batches = tf.data.Dataset.from_tensor_slices((mel, wave))
    trainer.fit(batches, steps_per_epoch=8, shuffle=False, verbose=0, callbacks=[loop])
    return trainer, loop


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


def test_a_skipped_step_changes_neither_weights_nor_optimizer(tmp_path):
    parts = [LossCfg(Poisoned(NAN), 1.0)]
    trainer, _ = train(tmp_path, set(), parts, ema_momentum=0.9)
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


class Told(Metric):
    """What it is told to say, of one utterance after the other."""

    measures = (Measure("told", "told", "", True),)

    def __init__(self, *values):
        self.values = list(values)

    def compute(self, reference, synthesised, sample_rate):
        assert len(reference) == len(synthesised) == 128
        return (self.values.pop(0),)


def test_a_metric_tells_the_best(tmp_path, capsys):
    told = Told(9.0, 1.0, NAN, 2.0, 2.0, 1.5, NAN, 1.0, 1.0)  # at steps 0 to 8
    often = {"validate_every": 1, "checkpoint_every": 100, "keep_checkpoints": 1}
    parts = [LossCfg(WaveformL1Loss(), 1.0, "l1")]
    _, loop = train(tmp_path, set(), parts, [told], ("told", True), **often)
    # Before the first step nothing is saved, so that value counts for nothing.
    assert [path.name for path in complete(tmp_path)] == ["step-00000003", "step-00000008"]
    assert float(loop.checkpoints.best) == 2.0
    column = [row["told"] for row in read_losses(tmp_path) if row["split"] == "validation"]
    assert column == ["9", "1", "", "2", "2", "1.5", "", "1", "1"]
    assert capsys.readouterr().out.count("told nan") == 2


def test_a_sample_may_be_shorter_than_the_window_of_its_mel(tmp_path, caplog):
    names = [f"{frames}.wav" for frames in range(1, 5)]
    _, loop = train(tmp_path, set(), L1, samples=[(n, i) for i, n in enumerate(names, 1)])
    lengths = [len(soundfile.read(synthesised)[0]) for _, synthesised in loop.samples]
    assert lengths == [16, 32, 48, 64] and not caplog.records


def test_a_sample_that_can_not_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/step-00000004").write_text("no folder")
    _, loop = train(tmp_path, set(), L1, samples=[("\x1b.wav", 4)])
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("sample of \\x1b.wav at step 4 is left out: ")
    assert "can't be written" in line
    assert [len(loop.samples), complete(tmp_path)[-1].name] == [1, "step-00000008"]
    steps = {path.parent.name for path in tmp_path.rglob("*_synthesised.wav")}
    assert steps == {"step-00000000", "step-00000008"}
