"""What a run writes down: TensorBoard curves, sounds and pictures, a CSV of losses, lines."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vocoder.audio import files

CSV = "losses.csv"
# Everything else that is logged is a loss or a metric.
TRAINING = ("learning_rate", "gradient_norm", "discriminator_gradient_norm", "steps_per_second")


class RunLog:
    """The logs of one run folder.

    TensorBoard gets a writer for training and one for validation below `tensorboard/`, with the
    same tags, so that both curves are on one chart.

    Args:
        run: The run's folder.
        columns: Names of the losses: "loss" (the total) and the parts; others have columns anyway.
        start_step: Rows of the CSV after this step are dropped: they belong to steps that a
            resumed run does again.
        metrics: Names of what else is measured in validation.
    """

    def __init__(
        self, run: Path, columns: list[str], start_step: int = 0, metrics: Sequence[str] = ()
    ):
        self.run = run
        self.metrics = metrics
        losses = [name for name in columns if name not in TRAINING]
        self.columns = ["step", "split", *losses, *metrics, *TRAINING]
        run.mkdir(parents=True, exist_ok=True)
        self.rows = [row for row in read_losses(run) if int(row["step"]) <= start_step]
        self._rewrite()
        self.writers = {
            split: tf.summary.create_file_writer(str(run / "tensorboard" / split))
            for split in ("train", "validation")
        }

    def _rewrite(self):
        partial = self.run / f".{CSV}.partial"
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(partial, self.run / CSV)

    def scalars(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Writes losses and what else there is, for `split` "train" or "validation".

        Metrics that are NaN, which is where they aren't defined, are left out.
        """
        values = {k: v for k, v in values.items() if k not in self.metrics or not np.isnan(v)}
        row = {"step": step, "split": split} | {k: f"{v:.7g}" for k, v in values.items()}
        self.rows.append(row)
        with (self.run / CSV).open("a", newline="") as file:
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

    def text(self, name: str, text: str) -> None:
        """Shows a text, such as the config, under TensorBoard's Text tab."""
        with self.writers["train"].as_default():
            tf.summary.text(name, f"```\n{text}\n```", step=0)

    def sample(self, step, name, waveform, synthesised, mel, synthesised_mel, sample_rate):
        """Writes a validation utterance and its synthesis, as sound and as picture.

        Args:
            step: Training step.
            name: Of the utterance; a relative path.
            waveform, synthesised: (samples,).
            mel, synthesised_mel: (frames, n_mels).
            sample_rate: Hz.

        Returns:
            The paths of the original and of the synthesised file.
        """
        stem = str(Path(name).with_suffix("")).replace(os.sep, "_")
        folder = self.run / "samples" / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        sounds = {"original": waveform, "synthesised": synthesised}
        paths = tuple(folder / f"{stem}_{kind}.wav" for kind in sounds)
        for path, samples in zip(paths, sounds.values(), strict=True):
            files.write(path, samples, sample_rate)
        with self.writers["validation"].as_default():
            for kind, samples in sounds.items():
                audio = np.clip(samples, -1, 1).astype(np.float32)[None, :, None]
                tf.summary.audio(f"{kind}/{stem}", audio, sample_rate, step, encoding="wav")
            tf.summary.image(f"mel/{stem}", picture(mel, synthesised_mel)[None], step)
        self.writers["validation"].flush()
        return paths

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
    """The rows of a run's CSV, or none."""
    path = run / CSV
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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
