"""A session of a run: `fit`, and what happens between its steps and epochs."""

import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from vocoder.config import TrainerConfig
from vocoder.errors import InputError, printable
from vocoder.training.checkpoints import Checkpoints
from vocoder.training.distribution import of_chief, several_workers
from vocoder.training.interruption import Interrupted, Interruption
from vocoder.training.log import RunLog
from vocoder.training.validation import Samples, UtteranceMetrics

log = logging.getLogger("vocoder")

# Share of a run's minutes that its schedules don't count: in the first of them graphs are compiled,
# and a run that does its steps in nine tenths of them is to have the same rates on any machine.
SPARE = 0.1


class Session(keras.callbacks.Callback):
    """Trains from a step on to the end of the run, or until it is interrupted.

    Steps are batches, counted over all sessions of the run. An epoch of Keras' is what lies between
    two validations, so that callbacks of Keras' see the values of each as `val_loss`, `val_mel`,
    `val_pesq_wb`, ....

    Args:
        config: Intervals and limits.
        log: Where to write.
        checkpoints: Where to save.
        validation: Batches to evaluate on.
        validation_steps: How many batches `validation` has; None for all there are.
        metrics: What else is measured at every validation.
        samples: What is written of every validation.
        files_of: Which files a batch was read from, by its number from 0 on.
        interruption: What may end the session from outside; by default nothing does.

    Attributes:
        stopped: Whether the session was interrupted before the run's end.
    """

    def __init__(
        self,
        config: TrainerConfig,
        log: RunLog,
        checkpoints: Checkpoints,
        validation,
        validation_steps: int | None,
        metrics: UtteranceMetrics,
        samples: Samples,
        files_of: Callable[[int], list[str]],
        interruption: Interruption | None = None,
    ):
        super().__init__()
        self.config = config
        self.log = log
        self.checkpoints = checkpoints
        self.validation = validation
        self.validation_steps = validation_steps
        self.metrics = metrics
        self.samples = samples
        self.files_of = files_of
        self.interruption = interruption or Interruption()
        self.stopped = False
        self.sums, self.counts = Counter(), Counter()  # of the losses since a curve's last point
        self.bad_steps = 0  # in a row

    def fit(
        self,
        trainer,
        batches: Callable[[int], tf.data.Dataset],
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        """Trains.

        Args:
            trainer: A compiled `vocoder.training.trainer.Trainer`, at the step to go on from.
            batches: Called with the number of a step, gives the batches from there on.
            callbacks: Of Keras', for the epochs to come.
        """
        self.set_model(trainer)
        self._begin()
        every = self.config.validate_every

        def fit(steps_per_epoch, epochs):
            trainer.fit(
                batches(trainer.step),
                initial_epoch=trainer.step // every,
                epochs=epochs,
                steps_per_epoch=steps_per_epoch,
                validation_data=self.validation,
                validation_steps=self.validation_steps,
                callbacks=[self, *callbacks],
                shuffle=False,
                verbose=0,
            )

        trainer.stop_training = False
        if left := -trainer.step % every:  # of an epoch that an earlier session has begun
            fit(left, trainer.step // every + 1)
        if not trainer.stop_training:
            fit(every, math.ceil(self.config.max_steps / every))
        self.bar.close()
        if self.saved != trainer.step:  # ended by another callback
            self._log_curves()
            self._save()

    def _begin(self):
        trainer = self.model
        self.saved = self.interval_step = trainer.step
        self.interval_start = time.monotonic()
        self.start = self.interval_start - trainer.seconds  # as if it were one session
        # On a terminal there is a bar, elsewhere a line now and then.
        self.bar = tqdm(
            total=self.config.max_steps,
            initial=trainer.step,
            unit="step",
            file=sys.stdout,
            disable=not sys.stdout.isatty(),
        )
        if several_workers(trainer.distribute_strategy):
            trainer.announced = {name: tf.Variable(0.0) for name in ("minutes", "stopped")}
        self._go_to(self._minutes())
        self.interruption.deferred = True
        if trainer.step == 0 or self._was_interrupted_in_validation():
            losses = trainer.evaluate(
                self.validation,
                steps=self.validation_steps,
                callbacks=[self],
                verbose=0,
                return_dict=True,
            )
            value = self._validate(losses)
            if trainer.step or self._interrupted:
                self._save(value)
            if self._interrupted:  # there is no step to be finished
                self.interruption.check()

    def on_train_batch_end(self, batch, logs=None):
        config, step = self.config, self.model.step
        minutes = self._agreed("minutes", self._minutes(), logs)
        self.stopped = self._agreed("stopped", float(self._interrupted), logs) > 0
        last = step >= config.max_steps or minutes >= 1
        self._go_to(minutes)
        self.bar.update()
        if bad := self.model.nonfinite(logs):
            self._skip(bad)
        else:
            self._count(logs)
        validates = step % config.validate_every == 0 or last
        saves = step % config.checkpoint_every == 0 or self.stopped
        # So no checkpoint has to hold half of what makes a point.
        if step % config.log_every == 0 or validates or saves:
            self._log_curves()
        if saves and not validates:
            self._save()
        if last:
            self.stopped = False
        self.model.interrupted = self.stopped and not validates
        self.model.stop_training = last or self.stopped

    def on_test_begin(self, logs=None):
        self.validation_start = time.monotonic()

    def on_test_batch_begin(self, batch, logs=None):
        self.model.stop_evaluating = self._gives_way

    def on_epoch_end(self, epoch, logs=None):
        """Ends a validation, and adds what it measured to the logs that other callbacks see."""
        step, config = self.model.step, self.config
        if self.model.interrupted:
            return
        losses = {n.removeprefix("val_"): v for n, v in logs.items() if n.startswith("val_")}
        value = self._validate(losses, logs)
        last = self.model.stop_training and not self.stopped
        self.stopped = self.stopped or (self._gives_way and not last)
        due = step % config.checkpoint_every == 0 or last or self.stopped
        if due or self.checkpoints.improves(value):
            self._save(value)
        self.model.stop_training = last or self.stopped

    def _minutes(self) -> float:
        """The share of `max_minutes` that this process has trained, over all sessions."""
        return (time.monotonic() - self.start) / 60 / (self.config.max_minutes or math.inf)

    def _go_to(self, minutes):
        """The schedules go by the steps, or by the minutes where these are to end the run first."""
        passed = max(self.model.step / self.config.max_steps, (minutes - SPARE) / (1 - SPARE))
        self.model.go_to(min(passed, 1.0))

    def _agreed(self, name, mine, logs) -> float:
        """A value of this process; with several workers, the mean that all of them read at once."""
        if name not in self.model.announced:
            return mine
        self.model.announced[name].assign(mine)  # the others read it in the next step
        return float(logs[name])

    @property
    def _interrupted(self):
        return self.interruption.code is not None

    @property
    def _gives_way(self):
        """Whether a validation is to be broken off: not the last, nor one of several workers."""
        alone = not several_workers(self.model.distribute_strategy)
        ends = self.model.stop_training and not self.stopped
        return self._interrupted and alone and not ends

    def _was_interrupted_in_validation(self):
        """Whether the checkpoint gone on from was saved where a validation should have been."""
        due = self.model.step % self.config.validate_every == 0
        if not due or several_workers(self.model.distribute_strategy):
            return False
        done = {int(row["step"]) for row in self.log.rows if row["split"] == "validation"}
        return self.model.step not in done

    def _save(self, value=None):
        self.model.seconds = time.monotonic() - self.start
        self.checkpoints.save(self.model.step, value)
        self.saved = self.model.step

    def _skip(self, bad):
        """Tells of a step that was skipped, and ends the run if there were too many in a row."""
        step = self.model.step
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

    def _count(self, logs):
        self.bad_steps = 0
        finite = {name: value for name, value in logs.items() if math.isfinite(value)}
        self.sums.update(finite)
        self.counts.update(finite.keys())

    def _log_curves(self):
        """Writes a point of the curves: means over the steps since the last, skipped ones apart."""
        names = [m.name for m in self.model.metrics if self.counts[m.name]]
        losses = {name: self.sums[name] / self.counts[name] for name in names}
        if not losses:
            return
        step, now = self.model.step, time.monotonic()
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
        self.sums.clear()
        self.counts.clear()
        self.interval_step, self.interval_start = step, now

    def _validate(self, losses, logs=None) -> float | None:
        """Measures what else there is to measure, and writes it down.

        Args:
            losses: Of `evaluate`.
            logs: What gets the rest of it, as "val_NAME".

        Returns:
            What tells the best; None if it was interrupted.
        """
        step, strategy = self.model.step, self.model.distribute_strategy
        try:
            self._check()
            with self.model.averaged_weights():
                # All workers decide by the same digits whether to save.
                values = losses | of_chief(strategy, self.metrics(self._synthesize))
                self.samples.write(step, self._synthesize)
        except Interrupted:
            return None
        finally:  # time spent here is no training time
            spent = time.monotonic() - self.validation_start
            self.interval_start += spent
            self.start += spent
        self.log.scalars("validation", step, values)
        self._say(f"validation at step {step}: {_line(values)}")
        if logs is not None:
            logs |= {f"val_{name}": value for name, value in values.items()}
        return values[self.config.best]

    def _check(self):
        if self._gives_way:
            self.interruption.check()

    def _synthesize(self, features):
        self._check()
        batch = {name: values[None] for name, values in features.items()}
        return np.asarray(self.model.generator(batch))[0]

    def _say(self, line):
        with self.interruption.output():
            tqdm.write(line, file=sys.stdout)


def _line(values) -> str:
    whole = {name: value for name, value in values.items() if "/" not in name}
    return "  ".join(f"{name} {float(value):.4g}" for name, value in whole.items())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
