"""What happens between the steps of `fit`: curves, validation, samples, checkpoints, the end."""

import logging
import math
import sys
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
from vocoder.training.interruption import Interrupted, Interruption
from vocoder.training.log import RunLog
from vocoder.training.trainer import put_back
from vocoder.training.validation import Ratings

log = logging.getLogger("vocoder")

# Share of a run's minutes that its schedules don't count: in the first of them graphs are compiled,
# and a run that does its steps in nine tenths of them is to have the same rates on any machine.
SPARE = 0.1


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
        interruption: What may end the run from outside; by default nothing does.
        validation_steps: How many batches `validation` has; None for all there are.

    Attributes:
        samples: (original, synthesised) paths of the last validation.
        stopped: Whether the run was interrupted before its end.
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
        interruption: Interruption | None = None,
        validation_steps: int | None = None,
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
        self.interruption = interruption or Interruption()
        self.validation_steps = validation_steps
        self.samples = []
        self.stopped = False
        self.bad_steps = 0  # in a row
        self._interruptible = False

    def on_train_begin(self, logs=None):
        self.start_step = self.interval_step = int(self.checkpoints.step)
        self.interval_start = time.monotonic()
        self.start = self.interval_start - self.model.seconds  # as if it were one session
        self.mel = MelSpectrogram(**vars(self.audio))
        # On a terminal there is a bar, elsewhere a line now and then.
        self.bar = tqdm(
            total=self.config.max_steps,
            initial=self.start_step,
            unit="step",
            file=sys.stdout,
            disable=not sys.stdout.isatty(),
        )
        wishes = {"minutes": self._minutes(), "stopped": 0.0}
        self.model.wishes = {name: tf.Variable(value) for name, value in wishes.items()}
        self._pass_to(self.start_step, wishes["minutes"])
        self.interruption.deferred = True
        if self.start_step == 0 or self._was_interrupted_in_validation():
            value = self._validate(self.start_step)
            if self.start_step or self._interrupted:
                self._save(self.start_step, value)
            if self._interrupted:  # there is no step to be finished
                self.interruption.check()
        # `fit` now resets the metrics, which a checkpoint may have brought half-full.
        self._means = self.model.keep(self.model.metrics_variables)

    def on_epoch_begin(self, epoch, logs=None):
        put_back(self._means)

    def on_train_batch_begin(self, batch, logs=None):
        self.model.at_step(self.start_step + batch)

    def on_train_batch_end(self, batch, logs=None):
        config, step = self.config, self.start_step + batch + 1
        minutes = self._agreed("minutes", self._minutes(), logs)
        last = step >= config.max_steps or minutes >= 1
        self._pass_to(step, minutes)
        self.bar.update()
        if bad := self.model.nonfinite(logs):
            self._skip(step, bad)
        else:
            self.bad_steps = 0
        if step % config.log_every == 0 or last:
            self._log_curves(step)
        value = None
        if step % config.validate_every == 0 or last:
            value = self._validate(step, last)
        stopped = self._agreed("stopped", float(self._interrupted), logs) > 0
        improved = self.checkpoints.improves(value)
        if step % config.checkpoint_every == 0 or last or improved or stopped:
            self._save(step, value)
        if last or stopped:
            self.stopped = stopped and not last
            self.bar.close()
            self.model.stop_training = True

    def _minutes(self) -> float:
        """The share of `max_minutes` that this process has trained, over all sessions."""
        return (time.monotonic() - self.start) / 60 / (self.config.max_minutes or math.inf)

    def _pass_to(self, step, minutes):
        """The schedules go by the steps, or by the minutes where these are to end the run first."""
        passed = max(step / self.config.max_steps, (minutes - SPARE) / (1 - SPARE))
        self.model.pass_to(min(passed, 1.0))

    def _agreed(self, name, mine, logs) -> float:
        """A value of this process; with several workers, the mean that all of them read at once."""
        if not several_workers(self.model.distribute_strategy):
            return mine
        self.model.wishes[name].assign(mine)  # the others read it in the next step
        return float(logs[name])

    @property
    def _interrupted(self):
        return self.interruption.code is not None

    def _save(self, step, value):
        self.model.seconds = time.monotonic() - self.start
        self.checkpoints.save(step, value)

    def _skip(self, step, bad):
        """Tells of a step that was skipped, and ends the run if there were too many in a row."""
        self.bad_steps += 1
        line = (
            f"step {step}: {', '.join(bad)} not finite; files: {', '.join(self.files_of(step - 1))}"
        )
        if self.bad_steps > self.config.max_bad_steps:
            raise InputError(
                f"trainer.max_bad_steps: more than {self.config.max_bad_steps} steps in a row had "
                f"to be skipped; {line}"
            )
        log.warning("%s; the step is skipped", printable(line))

    def _log_curves(self, step):
        """Writes a point of the curves: means over the steps since the last, skipped ones apart."""
        losses = self.model.means()
        if not losses:
            return
        now = time.monotonic()
        speed = (step - self.interval_step) / max(now - self.interval_start, 1e-9)
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
            self._say(
                f"step {step}/{self.config.max_steps}  {_line(losses)}  "
                f"{speed:.2f} steps/s  {_duration(left)} left"
            )
        self.model.reset_metrics()
        self.interval_step, self.interval_start = step, now

    def _validate(self, step, last=False) -> float | None:
        """Measures what there is to measure, and writes it down.

        Returns:
            What tells the best; None if it was interrupted. At the last step it goes on to its end.
        """
        begin = time.monotonic()
        self._interruptible = not last and not several_workers(self.model.distribute_strategy)
        try:
            with self.model.averaged_weights(), self.model.means_aside():
                values = self.model.evaluate(
                    self.validation,
                    steps=self.validation_steps,
                    callbacks=[self],
                    verbose=0,
                    return_dict=True,
                )
                # All workers decide by the same digits whether to save.
                ratings = self.ratings(self._synthesize)
                values |= of_chief(self.model.distribute_strategy, ratings)
                written = [self._sample(step, *one) for one in self.utterances]
                self.samples = [paths for paths in written if paths]
            self.log.scalars("validation", step, values)
            self._say(f"validation at step {step}: {_line(values)}")
            return values[self.config.best]
        except Interrupted:
            return None
        finally:  # time spent here is no training time
            spent = time.monotonic() - begin
            self.interval_start += spent
            self.start += spent

    def on_test_batch_begin(self, batch, logs=None):
        self._check()

    def _check(self):
        if self._interruptible:
            self.interruption.check()

    def _was_interrupted_in_validation(self):
        """Whether the checkpoint gone on from was saved where a validation should have been.

        Several workers are not interrupted in it.
        """
        due = self.start_step % self.config.validate_every == 0
        if not due or several_workers(self.model.distribute_strategy):
            return False
        done = {int(row["step"]) for row in self.log.rows if row["split"] == "validation"}
        return self.start_step not in done

    def _say(self, line):
        with self.interruption.output():
            tqdm.write(line, file=sys.stdout)

    def _synthesize(self, mel):
        self._check()
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
