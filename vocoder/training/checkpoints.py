"""Checkpoints of a run: each a folder, complete as soon as it has its name.

checkpoints/step-00001000/
    state.index, state.data-*   weights, optimizer, step, best value (`tf.train.Checkpoint`)
    generator.keras             the generator for inference, averaged if there is an average
    info.json                   step, the measure that tells the best, its value in validation, how
                                many seconds the run had trained
"""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

from vocoder.errors import InputError
from vocoder.training.trainer import Trainer

FOLDER = "checkpoints"
GENERATOR = "generator.keras"


def complete(folder: Path) -> list[Path]:
    """The complete checkpoints below `folder/checkpoints`, oldest first."""
    return sorted((folder / FOLDER).glob("step-*"), key=_step)


def to_resume(resume: str | None, run: Path) -> Path | None:
    """The checkpoint that `trainer.resume` means, None for a fresh start.

    Args:
        resume: A run, a checkpoint, "auto" for the newest of `run` if it has one, or None.
        run: This run's folder.

    Raises:
        InputError: There is no checkpoint.
    """
    if resume is None or (resume == "auto" and not complete(run)):
        return None
    return latest(run if resume == "auto" else Path(resume))


def latest(folder: Path) -> Path:
    """The newest checkpoint of a run, or `folder` itself if it is a checkpoint.

    Raises:
        InputError: There is none.
    """
    if (folder / "state.index").exists():
        return folder
    found = complete(folder)
    if not found:
        raise InputError(f"trainer.resume: no checkpoint in {folder / FOLDER}")
    return found[-1]


class Checkpoints:
    """Writes, prunes and restores the checkpoints of one run.

    Args:
        run: The run's folder.
        trainer: A compiled trainer.
        keep: How many of the last checkpoints stay, beside the best.
        writes: Whether this process is the one that writes; `save` has to be called in all.
        measure: Name of the value that tells which is best.
        higher_is_better: Or lower.

    Attributes:
        best: The best value so far; NaN before the first.
    """

    def __init__(
        self,
        run: Path,
        trainer: Trainer,
        keep: int,
        writes: bool = True,
        measure: str = "loss",
        higher_is_better: bool = False,
    ):
        self.run = run
        self.trainer = trainer
        self.keep = keep
        self.writes = writes
        self.measure = measure
        self.higher_is_better = higher_is_better
        self.step = tf.Variable(0, dtype=tf.int64)
        self.best = tf.Variable(np.nan, dtype=tf.float64)
        for partial in (run / FOLDER).glob(".step-*"):  # of a run that was killed while saving
            shutil.rmtree(partial)
        # The metrics hold the mean of a curve since its last point. These are copies: reading those
        # of several workers takes all of them, writing a checkpoint one.
        self._means = [tf.Variable(variable.numpy()) for variable in trainer.metrics_variables]
        self._state = tf.train.Checkpoint(
            **trainer.state, step=self.step, best=self.best, metrics=self._means
        )

    def restore(self, checkpoint: Path) -> int:
        """Restores everything and returns the step.

        The best value stays behind if it is one of another measure.

        Raises:
            InputError: The checkpoint does not fit the generator or optimizer of this run.
        """
        try:
            status = self._state.read(str(checkpoint / "state"))
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0][:200]
            raise InputError(
                f"trainer.resume: {checkpoint} does not fit this config's generator and optimizer "
                f"({reason})"
            ) from error
        for variable, mean in zip(self.trainer.metrics_variables, self._means, strict=True):
            variable.assign(mean)
        info = _info(checkpoint)
        self.trainer.seconds = info.get("seconds", 0.0)
        measure = info["measure"]
        if measure != self.measure:
            self.best.assign(np.nan)
            print(
                f"trainer.best: {checkpoint} went by {measure}; the best by {self.measure} is "
                "looked for from here on"
            )
        return int(self.step)

    def improves(self, value: float | None) -> bool:
        """Whether `value` is better than the best so far; None, NaN and infinity never are."""
        if value is None or not math.isfinite(value):
            return False
        best = float(self.best)
        return math.isnan(best) or (value > best if self.higher_is_better else value < best)

    def save(self, step: int, value: float | None) -> None:
        """Writes the checkpoint of `step`.

        Args:
            step: Training step.
            value: Of the measure, if it was validated at that step; NaN where not defined.

        Raises:
            InputError: It can't be written. Those before it are as they were.
        """
        if self.improves(value):
            self.best.assign(value)
        self.step.assign(step)
        for variable, mean in zip(self.trainer.metrics_variables, self._means, strict=True):
            mean.assign(variable.numpy())
        if not self.writes:
            return
        final = self.run / FOLDER / f"step-{step:08d}"
        partial = final.with_name(f".{final.name}.partial")
        try:
            partial.mkdir(parents=True, exist_ok=True)
            self._write(partial, step, value)
            _publish(partial, final)
            # What to synthesise with is at hand at the top of the run, also while it is going on.
            shutil.copyfile(final / GENERATOR, self.run / f".{GENERATOR}")
            os.replace(self.run / f".{GENERATOR}", self.run / GENERATOR)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            (self.run / f".{GENERATOR}").unlink(missing_ok=True)
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{final}: can't be written ({reason}); the checkpoints before it are whole"
            ) from error
        self._prune()

    def _write(self, folder, step, value):
        self._state.write(str(folder / "state"))
        with self.trainer.averaged_weights():
            self.trainer.generator.folded().save(folder / GENERATOR)
        value = value if value is not None and math.isfinite(value) else None
        info = {"step": step, "measure": self.measure, "value": value}
        info["seconds"] = self.trainer.seconds
        (folder / "info.json").write_text(json.dumps(info))

    def _prune(self) -> None:
        found = complete(self.run)
        infos = {path: _info(path) for path in found}
        values = {
            path: info["value"]
            for path, info in infos.items()
            if info["measure"] == self.measure and info["value"] is not None
        }
        best = (max if self.higher_is_better else min)(values, key=values.get, default=None)
        for path in found[: -self.keep]:
            if path != best:
                shutil.rmtree(_hidden(path))


def _publish(partial: Path, final: Path) -> None:
    """Gives a complete folder its name, after all of it has reached the disk."""
    for path in (*partial.iterdir(), partial):
        _flush(path)
    if final.exists():  # of a run that went on from an earlier checkpoint
        old = _hidden(final)
        os.replace(partial, final)
        shutil.rmtree(old)
    else:
        os.replace(partial, final)
    _flush(final.parent)


def _hidden(checkpoint: Path) -> Path:
    """Takes a checkpoint's name away, since half deleted it must not pass for a complete one."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.old")
    os.replace(checkpoint, hidden)
    return hidden


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _info(checkpoint: Path) -> dict:
    info = json.loads((checkpoint / "info.json").read_text())
    # Before there was `trainer.best`, every run went by the total.
    return {"measure": "loss", "value": info.get("validation_loss")} | info
