"""What happens between the steps of `fit`: curves, validation, samples, checkpoints, the end."""

import logging
import os
import signal
import sys
import threading
import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from vocoder.audio import MelSpectrogram
from vocoder.config import AudioConfig, TrainerConfig
from vocoder.errors import InputError, printable
from vocoder.training.checkpoints import Checkpoints
from vocoder.training.distribution import of_chief, several_workers
from vocoder.training.log import RunLog
from vocoder.training.validation import Ratings

log = logging.getLogger("vocoder")


class TrainingLoop(keras.callbacks.Callback):
    """The callback of a run. Steps are batches, counted over all sessions of the run.

    One epoch of `fit` is the whole run, so that training can end and go on at any step.

    Args:
        config: Intervals and limits.
        audio: Settings of the mel.
        log: Where to write.
        checkpoints: Where to save.
        validation: Batches to evaluate on.
        utterances: [(name, mel, waveform), ...] to synthesise and write at every validation.
        files_of: Which files a batch was read from, by its number from 0 on.
        ratings: What else is measured at every validation.

    Attributes:
        samples: (original, synthesised) paths of the last validation.
        stopped: Whether a signal ended the run before its time.
    """

    def __init__(
        self,
        config: TrainerConfig,
        audio: AudioConfig,
        log: RunLog,
        checkpoints: Checkpoints,
        validation,
        utterances,
        files_of,
        ratings: Ratings,
    ):
        super().__init__()
        self.config = config
        self.audio = audio
        self.log = log
        self.checkpoints = checkpoints
        self.validation = validation
        self.utterances = utterances
        self.files_of = files_of
        self.ratings = ratings
        self.samples = []
        self.stopped = False
        self.bad_steps = 0  # in a row

    def on_train_begin(self, logs=None):
        self.start_step = self.interval_step = int(self.checkpoints.step)
        self.start = self.interval_start = time.monotonic()
        self.mel = MelSpectrogram(**vars(self.audio))
        # On a terminal there is a bar, elsewhere a line now and then.
        self.bar = tqdm(
            total=self.config.max_steps,
            initial=self.start_step,
            unit="step",
            file=sys.stdout,
            disable=not sys.stdout.isatty(),
        )
        self.model.wishes = {n: tf.Variable(0.0) for n in ("out_of_time", "stopped")}
        if self.start_step == 0:
            self._validate(0)
        self._handle_signals()
        # `fit` now resets the metrics, which a checkpoint may have brought half-full.
        self._means = [variable.numpy() for variable in self.model.metrics_variables]

    def on_epoch_begin(self, epoch, logs=None):
        for variable, value in zip(self.model.metrics_variables, self._means, strict=True):
            variable.assign(value)

    def on_train_batch_begin(self, batch, logs=None):
        self.model.at_step(self.start_step + batch)

    def on_train_batch_end(self, batch, logs=None):
        config, step = self.config, self.start_step + batch + 1
        minutes = (time.monotonic() - self.start) / 60
        out_of_time = config.max_minutes is not None and minutes >= config.max_minutes
        out_of_time = self._agreed("out_of_time", out_of_time, logs)
        stopped = self._agreed("stopped", self.stopped, logs)
        last = step >= config.max_steps or out_of_time
        self.bar.update()
        if bad := self.model.nonfinite(logs):
            self._skip(step, bad)
        else:
            self.bad_steps = 0
            if step % config.log_every == 0 or last:
                self._log_curves(step, logs)
        value = None
        if step % config.validate_every == 0 or last:
            value = self._validate(step)[config.best]
        improved = self.checkpoints.improves(value)
        if step % config.checkpoint_every == 0 or last or improved or stopped:
            self.checkpoints.save(step, value)
        if last or stopped:
            self.stopped = stopped
            self.bar.close()
            self.model.stop_training = True

    def _agreed(self, name, mine, logs):
        """Whether this is to happen now: on all of several workers, once one of them wishes it."""
        if not several_workers(self.model.distribute_strategy):
            return mine
        self.model.wishes[name].assign(float(mine))  # the others read it in the next step
        return float(logs[name]) > 0

    def _skip(self, step, bad):
        """Tells of a step that was skipped, and ends the run if there were too many in a row."""
        self.bad_steps += 1
        self.model.reset_metrics()  # which the step has spoilt
        line = (
            f"step {step}: {', '.join(bad)} not finite; files: {', '.join(self.files_of(step - 1))}"
        )
        if self.bad_steps > self.config.max_bad_steps:
            raise InputError(
                f"trainer.max_bad_steps: more than {self.config.max_bad_steps} steps in a row had "
                f"to be skipped; {line}"
            )
        log.warning("%s; the step is skipped", printable(line))

    def _handle_signals(self):
        """SIGTERM and Ctrl-C end the run after the step, the second time at once."""

        def ask(number, frame):
            if self.stopped:
                os._exit(128 + number)
            self.stopped = True
            print("\nstopping after this step; once more stops at once", flush=True)

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, ask)

    def _log_curves(self, step, logs):
        now = time.monotonic()
        speed = (step - self.interval_step) / (now - self.interval_start)
        means = self.model.get_metrics_result()
        losses = {name: float(value) for name, value in means.items() if name in logs}
        extra = {
            "learning_rate": float(self.model.optimizer.learning_rate),
            "steps_per_second": speed,
        }
        self.log.scalars("train", step, losses | extra)
        self.bar.set_postfix_str(_line(losses), refresh=False)
        if self.bar.disable:
            left = (self.config.max_steps - step) / speed
            if self.config.max_minutes is not None:
                left = min(left, self.config.max_minutes * 60 - (now - self.start))
            print(
                f"step {step}/{self.config.max_steps}  {_line(losses)}  "
                f"{speed:.2f} steps/s  {_duration(left)} left",
                flush=True,
            )
        self.model.reset_metrics()  # each point of a curve is the mean since the last
        self.interval_step, self.interval_start = step, now

    def _validate(self, step):
        begin = time.monotonic()
        with self.model.averaged_weights():
            values = self.model.evaluate(self.validation, verbose=0, return_dict=True)
            # All workers decide by the same digits whether to save.
            values |= of_chief(self.model.distribute_strategy, self.ratings(self._synthesize))
            self.samples = [paths for one in self.utterances if (paths := self._sample(step, *one))]
        self.model.reset_metrics()
        self.log.scalars("validation", step, values)
        tqdm.write(f"validation at step {step}: {_line(values)}", file=sys.stdout)
        sys.stdout.flush()
        # Time spent here is no training time.
        spent = time.monotonic() - begin
        self.interval_start += spent
        self.start += spent
        return values

    def _synthesize(self, mel):
        return np.asarray(self.model.generator(mel[None]))[0]

    def _sample(self, step, name, mel, waveform):
        synthesised = self._synthesize(mel)
        synthesised_mel = np.asarray(self.mel(synthesised[None]))[0]
        rate = self.audio.sample_rate
        try:
            return self.log.sample(step, name, waveform, synthesised, mel, synthesised_mel, rate)
        except InputError as error:  # the loss of a sample is no reason to end a run
            line = f"sample of {name} at step {step} is left out: {error}"
            log.warning("%s", printable(line))
            return None


def _line(values) -> str:
    whole = {name: value for name, value in values.items() if "/" not in name}
    return "  ".join(f"{name} {float(value):.4g}" for name, value in whole.items())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
