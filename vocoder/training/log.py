"""What a run writes down: TensorBoard curves, sounds and pictures, a CSV of losses, lines."""

import contextlib
import csv
import glob
import io
import logging
import os
import re
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import tensorflow as tf
from google.protobuf.message import DecodeError
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.plugins.hparams import api as hp

from vocoder.errors import InputError, printable
from vocoder.paths import file_name, open_regular, replacing
from vocoder.training.run_folder import free_name, reason_of, step_of

log = logging.getLogger("vocoder")

CSV = "losses.csv"
COLUMNS = ("step", "split")  # before those of what is logged
# Everything else that is logged is a loss or a metric.
TRAINING = ("learning_rate", "gradient_norm", "discriminator_gradient_norm", "steps_per_second")
SPLITS = ("train", "validation")


class RunLog:
    """The logs of one run folder.

    TensorBoard gets a writer for training and one for validation below `tensorboard/`, with the
    same tags, so that both curves are on one chart.

    What the folder holds of steps after `start_step` goes, be it in the CSV, in TensorBoard or
    among the samples: a resumed run does these steps again, and must not show them twice.

    Args:
        run: The run's folder.
        columns: Names of the losses: "loss" (the total) and the parts; others have columns anyway.
        start_step: The last step that was done; 0 for a new run.
        metrics: Names of what else is measured in validation.

    Raises:
        InputError: The folder can't be written to; so do the methods.
    """

    def __init__(
        self, run: Path, columns: list[str], start_step: int = 0, metrics: Sequence[str] = ()
    ):
        self.run = run
        self.metrics = metrics
        losses = [name for name in columns if name not in TRAINING]
        last = start_step or -1  # of a run that begins, step 0 is to come as well
        self._first = last + 1
        self._stems = {}  # of samples, by the names of their utterances
        self._originals = {}  # their paths, by stem
        with self._writing():
            run.mkdir(parents=True, exist_ok=True)
            self.rows = [row for row in self._read() if int(row["step"]) <= last]
            columns = [*COLUMNS, *losses, *metrics, *TRAINING]
            # A term that the loss has lost keeps the values that it had.
            earlier = [name for name in next(iter(self.rows), ()) if name not in columns]
            self.columns = columns + earlier
            self._rewrite()
            for folder in (run / "samples").glob("step-*"):
                step = step_of(folder)
                later = step is not None and step > last
                if later and folder.is_dir() and not folder.is_symlink():
                    shutil.rmtree(folder)
            folders = {split: run / "tensorboard" / split for split in SPLITS}
            self._shown = set()  # tags that TensorBoard has from earlier sessions
            for folder in folders.values():
                for path in sorted(folder.glob("*tfevents*")):
                    self._shown |= _cut(path, last)
            self.writers = {
                split: tf.summary.create_file_writer(os.fsencode(folder))
                for split, folder in folders.items()
            }

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            where = getattr(error, "filename", None) or self.run
            raise InputError(f"{where}: can't be written ({reason_of(error)})") from error

    def _read(self):
        """The rows so far; where the CSV holds anything else, it is kept under another name."""
        rows, fault = _rows(self.run / CSV)
        if fault:
            kept = free_name(self.run / "losses-damaged.csv")
            os.replace(self.run / CSV, kept)
            line = f"{self.run / CSV}: {fault}; its whole rows are taken over, and it is now {kept}"
            log.warning("%s", printable(line))
        return rows

    def _rewrite(self):
        with replacing(self.run / CSV, newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)

    def scalars(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Writes losses and what else there is, for `split` "train" or "validation".

        Metrics that are NaN, which is where they aren't defined, are left out.
        """
        values = {k: v for k, v in values.items() if k not in self.metrics or not np.isnan(v)}
        row = {"step": step, "split": split} | {k: f"{v:.7g}" for k, v in values.items()}
        self.rows.append(row)
        with self._writing():
            with (self.run / CSV).open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(row)
            with self.writers[split].as_default():
                for name, value in values.items():
                    tf.summary.scalar(self._tag(name), value, step)
            self.writers[split].flush()

    def _tag(self, name):
        if name == "loss":
            return "loss/total"
        if name in self.metrics:
            return f"metric/{name}"
        return f"{'training' if name in TRAINING else 'loss'}/{name}"

    def keep(self, name: str, text: str) -> None:
        """Writes a text into the run's folder."""
        with self._writing(), replacing(self.run / name, encoding="utf-8") as file:
            file.write(text)

    def text(self, name: str, text: str) -> None:
        """Shows a text, such as the config, under TensorBoard's Text tab, for the steps to come."""
        with self._writing(), self.writers["train"].as_default():
            tf.summary.text(name, f"```\n{text}\n```", step=self._first)

    def hparams(self, values: Mapping[str, bool | int | float | str]) -> None:
        """Shows values beside the run's figures, under TensorBoard's HParams tab, once a run."""
        folder = self.run / "tensorboard"
        if any(folder.glob("*tfevents*")):  # of an earlier session
            return
        # TensorBoard takes text alone, which a path need not be.
        shown = {printable(k): printable(v) if isinstance(v, str) else v for k, v in values.items()}
        with self._writing():
            writer = tf.summary.create_file_writer(os.fsencode(folder))
            with writer.as_default():
                hp.hparams(shown, trial_id=printable(self.run.resolve()))
            writer.close()

    def sample(self, step, name, waveform, synthesised, mel, synthesised_mel, sample_rate):
        """Writes the synthesis of a validation utterance, as sound and as picture.

        The utterance itself is written if the folder doesn't have it yet.

        Args:
            step: Training step.
            name: Of the utterance; a relative path.
            waveform, synthesised: (samples,).
            mel, synthesised_mel: (frames, n_mels).
            sample_rate: Hz.

        Returns:
            The paths of the original and of the synthesised file.

        Raises:
            InputError: It can't be written, or the synthesis is not finite.
        """
        if not np.isfinite(synthesised).all():
            raise InputError("the synthesis holds NaN or infinity")
        stem = self._stem(name)
        folder = self.run / "samples" / f"step-{step:08d}"
        path = folder / f"{stem}_synthesised.wav"
        writer = self.writers["validation"]
        with self._writing(), writer.as_default():
            folder.mkdir(parents=True, exist_ok=True)
            if stem not in self._originals:
                self._originals[stem] = self._original(folder, stem, waveform, sample_rate, step)
            _write(path, _wav(synthesised, sample_rate))
            _show(f"synthesised/{stem}", synthesised, sample_rate, step)
            tf.summary.image(f"mel/{stem}", picture(mel, synthesised_mel)[None], step)
            writer.flush()
        return self._originals[stem], path

    def _original(self, folder, stem, waveform, sample_rate, step):
        sound, tag = _wav(waveform, sample_rate), f"original/{stem}"
        name = f"{stem}_original.wav"
        path = max(folder.parent.glob(f"step-*/{glob.escape(name)}"), default=folder / name)
        there = path.is_file() and path.read_bytes() == sound
        if not there:
            path = folder / name
            _write(path, sound)
        if not there or tag not in self._shown:
            _show(tag, waveform, sample_rate, step)
        return path

    def _stem(self, name):
        """What an utterance is called in files and tags: can be written, and is no other's."""
        if name not in self._stems:
            flat = file_name(str(Path(name).with_suffix("")).replace(os.sep, "_"))
            taken = set(map(_folded, self._stems.values()))
            candidates = (flat, *(f"{flat}-{i}" for i in range(2, len(taken) + 3)))
            self._stems[name] = next(c for c in candidates if _folded(c) not in taken)
        return self._stems[name]

    def table(self) -> str:
        """Each loss and metric of validation at the first and at the last validation of the run."""
        rows = [row for row in self.rows if row["split"] == "validation"]
        if not rows:
            return "no validation yet"
        first, last = rows[0], rows[-1]
        names = [name for name in self.columns[2:] if name not in TRAINING]
        shown = [name for name in names if first.get(name) or last.get(name)]
        lines = [
            f"{'validation':<20}"
            + "".join(f"{'step ' + str(r['step']):>14}" for r in (first, last))
        ]
        for name in shown:  # a term that was added on resuming has no value before
            values = (f"{float(row[name]):.4f}" if row.get(name) else "-" for row in (first, last))
            lines.append(f"{name:<20}" + "".join(f"{value:>14}" for value in values))
        return "\n".join(lines)


def read_losses(run: Path) -> list[dict[str, str]]:
    """The whole rows of a run's CSV, or none.

    Raises:
        InputError: It can't be read.
    """
    return _rows(run / CSV)[0]


def _rows(path):
    """The rows of a CSV of losses that are whole, and what is wrong with it, or None."""
    if not os.path.lexists(path):
        return [], None
    rows, faulty = [], []
    with os.fdopen(open_regular(path), newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        try:
            header = set(reader.fieldnames or COLUMNS)
            for row in reader:
                (rows if _is_whole(row) else faulty).append(row)
                last = row
        except csv.Error as error:
            return rows, f"can't be read after line {reader.line_num} ({error})"
    if not header.issuperset(COLUMNS):
        return [], "has no column step, or none split"
    # A row that was being written when the process was killed is nothing that one could miss.
    if faulty and faulty != [last]:
        return rows, f"{len(faulty)} of {len(faulty) + len(rows)} rows are damaged"
    return rows, None


def _is_whole(row):
    if None in row or None in row.values():  # too many fields, or too few
        return False
    numbers = dict(row)
    if not re.fullmatch(r"\d{1,18}", numbers.pop("step", ""), re.ASCII):
        return False
    if numbers.pop("split", "") not in SPLITS:
        return False
    try:
        return all(float(number or 0) is not None for number in numbers.values())
    except ValueError:
        return False


def _cut(path: Path, last: int) -> set[str]:
    """Ends a file of TensorBoard's before the first event of a step after `last`.

    TensorBoard has a mark for a new session that hides such events, but not every reader of its
    files heeds it.

    Returns:
        The tags of the events before.
    """
    tags, end = set(), None
    if path.name.startswith("."):  # of a process that was killed in here
        path.unlink()
    elif path.is_file():
        with os.fdopen(open_regular(path), "rb") as file:
            for begin, event in _events(file):
                if event.step > last:
                    end = begin
                    break
                tags.update(value.tag for value in event.summary.value)
            if end is not None:
                file.seek(0)
                with replacing(path, "wb") as kept:
                    shutil.copyfileobj(file, kept)
                    kept.truncate(end)
    return tags


def _events(file):
    """(offset, event) of each record: its length, a checksum, the event, a checksum."""
    begin, size = 0, os.fstat(file.fileno()).st_size
    while begin + 16 <= size:
        length = int.from_bytes(file.read(12)[:8], "little")
        if begin + 16 + length > size:  # of a process that was killed
            return
        try:
            event = tf.compat.v1.Event.FromString(file.read(length))
        except DecodeError:
            return
        yield begin, event
        begin += 16 + length
        file.seek(begin)


def _wav(samples, sample_rate) -> bytes:
    """The 16-bit WAV file of (samples,), clipped to [-1, 1]."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), sample_rate, "PCM_16", format="WAV")
    return file.getvalue()


def _write(path, content):
    with replacing(path, "wb") as file:
        file.write(content)


def _show(tag, samples, sample_rate, step):
    audio = np.clip(samples, -1, 1).astype(np.float32)[None, :, None]
    tf.summary.audio(tag, audio, sample_rate, step, encoding="wav")


def _folded(name):
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def picture(mel, synthesised_mel) -> np.ndarray:
    """Two mels and their difference above one another, (height, width, 3) uint8."""
    frames = min(len(mel), len(synthesised_mel))
    mel, synthesised_mel = mel[:frames].T, synthesised_mel[:frames].T
    figure = Figure(figsize=(8, 7), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(3, sharex=True)
    low, high = float(mel.min()), float(mel.max())
    panels = {
        "original": (mel, {"vmin": low, "vmax": high}),
        "synthesised": (synthesised_mel, {"vmin": low, "vmax": high}),
        "synthesised - original": (
            synthesised_mel - mel,
            {"vmin": -3, "vmax": 3, "cmap": "RdBu_r"},
        ),
    }
    for axis, (title, (values, style)) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(values, origin="lower", aspect="auto", interpolation="none", **style)
        axis.set_title(title)
        axis.set_ylabel("mel band")
        figure.colorbar(image, ax=axis)
    axes[-1].set_xlabel("frame")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
