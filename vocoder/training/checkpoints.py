"""Checkpoints of a run: each a folder, complete as soon as it has its name.

checkpoints/step-00001000/
    state.index, state.data-*   weights, optimizer, step, best value (`tf.train.Checkpoint`)
    generator.keras             the generator for inference, averaged if there is an average
    info.json                   step, the measure that tells the best, its value in validation, how
                                many seconds the run had trained
"""

import contextlib
import json
import logging
import math
import os
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

from vocoder.config import TrainerConfig
from vocoder.errors import InputError, printable
from vocoder.paths import user_path
from vocoder.training.run_folder import (
    CHECKPOINTS,
    GENERATOR,
    INFO,
    about,
    complete,
    examine,
    offer,
    reason_of,
)
from vocoder.training.trainer import Trainer

log = logging.getLogger("vocoder")


def to_resume(resume: str | None, run: Path) -> Path | None:
    """The checkpoint that `trainer.resume` means, None for a fresh start.

    Args:
        resume: A run, a checkpoint, "auto" for the newest of `run` if it has one, or None.
        run: This run's folder.

    Raises:
        InputError: There is no checkpoint, or none that is whole.
    """
    if resume is None:
        return None
    return latest(run, needed=False) if resume == "auto" else latest(user_path(resume))


def latest(folder: Path, needed: bool = True) -> Path | None:
    """The newest whole checkpoint of a run, or `folder` itself if it is a checkpoint.

    What is newer but not whole is told and passed over.

    Args:
        folder: A run's, or a checkpoint.
        needed: Whether it is an error that a run has no checkpoint at all; otherwise it is None.

    Raises:
        InputError: There is none, or none that is whole.
    """
    if folder.parent.name == CHECKPOINTS or (folder / "state.index").exists():
        try:
            about(folder)
        except InputError as error:
            others = complete(folder.parents[1]) if folder.parent.name == CHECKPOINTS else []
            hint = f"; {others[-1]} is whole" if others else ""
            raise InputError(f"trainer.resume: {error}{hint}") from error
        return folder
    found, faults = examine(folder)
    if found:
        for fault in faults:
            log.warning("%s; passed over", printable(fault))
        return found[-1]
    if not faults and not needed:
        return None
    reason = f" that is whole ({'; '.join(faults)})" if faults else ""
    raise InputError(f"trainer.resume: no checkpoint in {folder / CHECKPOINTS}{reason}")


def done(checkpoint: Path, trainer: TrainerConfig) -> str | None:
    """Why a run has nothing left to do after a checkpoint: the key that would have to be larger."""
    info = about(checkpoint)
    if info["step"] >= trainer.max_steps:
        return f"trainer.max_steps: {info['step']} were done when {checkpoint} was saved"
    minutes = info["seconds"] / 60
    if trainer.max_minutes is not None and minutes >= trainer.max_minutes:
        return f"trainer.max_minutes: {minutes:.2f} were over when {checkpoint} was saved"
    return None


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
        for partial in (run / CHECKPOINTS).glob(".step-*"):  # of a run killed while saving
            with contextlib.suppress(OSError):
                folder = partial.is_dir() and not partial.is_symlink()
                shutil.rmtree(partial) if folder else partial.unlink()
        self._state = tf.train.Checkpoint(**trainer.state, step=self.step, best=self.best)

    def restore(self, checkpoint: Path) -> None:
        """Restores everything; but the best value only if it is one of the same measure.

        Raises:
            InputError: The checkpoint is damaged, or does not fit the generator or optimizer of
                this run.
        """
        info = about(checkpoint)
        try:
            status = self._state.read(str(checkpoint / "state"))
            status.assert_existing_objects_matched()
        # TensorFlow's own words for a file that ends early are an IndexError.
        except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
            reason = reason_of(error)
            if isinstance(error, AssertionError | ValueError | tf.errors.InvalidArgumentError):
                fault = f"does not fit this config's generator and optimizer ({reason})"
            else:
                others = complete(checkpoint.absolute().parents[1])
                before = [path for path in others if path.name < checkpoint.name]
                fault = f"is damaged ({reason})"
                fault += f"; before it there is {before[-1]}" if before else ""
            raise InputError(f"trainer.resume: {checkpoint} {fault}") from error
        if int(self.step) != info["step"]:
            raise InputError(
                f"trainer.resume: {checkpoint / INFO}: says step {info['step']}, but the state is "
                f"that of step {int(self.step)}"
            )
        self.trainer.step = info["step"]
        self.trainer.seconds = info["seconds"]
        if info["measure"] != self.measure:
            self.best.assign(np.nan)
            print(
                f"trainer.best: {checkpoint} went by {info['measure']}; the best by {self.measure} "
                "is looked for from here on"
            )

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
        if not self.writes:
            return
        value = value if value is not None and math.isfinite(value) else None
        info = {"step": step, "measure": self.measure, "value": value}
        info["seconds"] = self.trainer.seconds
        final = self.run / CHECKPOINTS / f"step-{step:08d}"
        partial = final.with_name(f".{final.name}.partial")
        try:
            partial.mkdir(parents=True)
            self._write(partial, info)
            _publish(partial, final)
            # What to synthesise with is at hand at the top of the run, also while it is going on.
            offer(final, self.run)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            reason = reason_of(error)
            raise InputError(
                f"{final}: can't be written ({reason}); the checkpoints before it are whole"
            ) from error
        self._prune()

    def _write(self, folder, info):
        self._state.write(str(folder / "state"))
        with self.trainer.averaged_weights():
            self.trainer.generator.folded().save(folder / GENERATOR)
        (folder / INFO).write_text(json.dumps(info))

    def _prune(self) -> None:
        found = complete(self.run)
        infos = {path: about(path) for path in found}
        values = {
            path: info["value"]
            for path, info in infos.items()
            if info["measure"] == self.measure and info["value"] is not None
        }
        best = (max if self.higher_is_better else min)(values, key=values.get, default=None)
        for path in found[: -self.keep]:
            if path != best:
                try:
                    shutil.rmtree(_hidden(path))
                except OSError as error:
                    log.warning("%s: can't be removed (%s)", path, reason_of(error))


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
