"""What is measured and written at a validation beside the losses, and what tells the best."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vocoder.audio import MelSpectrogram
from vocoder.audio.settings import AudioConfig
from vocoder.errors import InputError, printable
from vocoder.losses.terms import FEATURES
from vocoder.training.log import COLUMNS, TRAINING, RunLog
from vocoder.training.trainer import Trainer

log = logging.getLogger("vocoder")

Features = dict[str, np.ndarray]


class UtteranceMetrics:
    """Metrics of whole utterances, each as the mean over all of them.

    Args:
        metrics: Of `vocoder.evaluation`, built.
        utterances: [(name, features, waveform), ...] to synthesise. Without any, all is NaN, as in
            the workers beside the chief, which get its values.
        sample_rate: Hz.

    Attributes:
        names: Of the measures.
    """

    def __init__(self, metrics: Sequence, utterances: Sequence, sample_rate: int):
        self.metrics = metrics
        self.utterances = utterances
        self.sample_rate = sample_rate
        self.names = [measure.name for metric in metrics for measure in metric.measures]

    def __call__(self, synthesize: Callable[[Features], np.ndarray]) -> dict[str, float]:
        """The mean of every measure where it is defined, by name; NaN if it is nowhere.

        A metric that fails at an utterance is told, and not defined there.

        Args:
            synthesize: Features by name, (frames, ...) -> (samples,).
        """
        found = {name: [] for name in self.names}
        for utterance, features, waveform in self.utterances:
            synthesised = synthesize(features)
            for metric in self.metrics:
                try:
                    values = metric(waveform, synthesised, self.sample_rate)
                except Exception as error:  # of other packages, and no reason to end a run
                    names = ", ".join(measure.name for measure in metric.measures)
                    line = f"trainer.validation_metrics: {names} of {utterance} failed ({error!r})"
                    log.warning("%s", printable(line))
                    continue
                for name, value in values.items():
                    if not np.isnan(value):
                        found[name].append(value)
        return {n: float(np.mean(values)) if values else np.nan for n, values in found.items()}


class Samples:
    """What is to be heard and seen of a validation.

    Args:
        utterances: [(name, features, waveform), ...] to synthesise.
        audio: Settings of the mel.
        log: Where to write.

    Attributes:
        paths: (original, synthesised) of each at the last validation.
    """

    def __init__(self, utterances: Sequence, audio: AudioConfig, log: RunLog):
        self.utterances = utterances
        self.sample_rate = audio.sample_rate
        self.mel = MelSpectrogram(**vars(audio))
        self.log = log
        self.paths = []

    def write(self, step: int, synthesize: Callable[[Features], np.ndarray]) -> None:
        """Synthesises and writes; what can't be written is told and left out.

        Args:
            step: Training step.
            synthesize: Features by name, (frames, ...) -> (samples,).
        """
        paths = []
        for name, features, waveform in self.utterances:
            mel, synthesised = features["mel"], synthesize(features)
            synthesised_mel = np.asarray(self.mel(synthesised[None]))[0]
            try:
                paths.append(
                    self.log.sample(
                        step, name, waveform, synthesised, mel, synthesised_mel, self.sample_rate
                    )
                )
            except InputError as error:  # the loss of a sample is no reason to end a run
                line = f"sample of {name} at step {step} is left out: {error}"
                log.warning("%s", printable(line))
        self.paths = paths


def directions(trainer: Trainer, metrics: Sequence) -> dict[str, bool]:
    """What validation measures, by name, and whether more of it is better.

    Args:
        trainer: A compiled trainer.
        metrics: Of `vocoder.evaluation`, built.

    Raises:
        InputError: A loss has the name of something else that a run logs.
    """
    names = [metric.name for metric in trainer.metrics]
    for part in trainer.loss.metrics:
        if part.name in (*COLUMNS, *TRAINING) or names.count(part.name) > 1:
            raise InputError(
                f"loss.terms.{part.name}: a run logs something else of that name; give the term "
                "another"
            )
    measures = {measure.name: measure for metric in metrics for measure in metric.measures}
    for name in set(names) & set(measures):
        raise InputError(
            f"loss.terms.{name}: trainer.validation_metrics measures something of that name; "
            "give the term another"
        )
    # What discriminators say is not asked in validation.
    losses = ["loss", *(part.name for part in trainer.loss.parts if part.of != FEATURES)]
    higher = {name: measure.higher_is_better for name, measure in measures.items()}
    return dict.fromkeys(losses, False) | higher


def check_measured(name: str, key: str, measured: Mapping[str, bool]) -> None:
    """Raises `InputError` unless validation measures it.

    Args:
        name: What is to be measured.
        key: Of the config, that asks for it.
        measured: Of `directions`.
    """
    if name not in measured:
        raise InputError(
            f"{key}: validation has no {name!r} (it has: {', '.join(measured)}; "
            "trainer.validation_metrics adds others)"
        )
