"""The typed frame of a run and the checks across its fields.

Hydra composes the YAML files of `configs/`; `RunConfig.from_omegaconf` turns the result into the
dataclasses below, which everything else reads. Nothing here imports Keras.
"""

import dataclasses
import logging
import numbers
import reprlib
import typing
from pathlib import Path
from typing import Any

from vocoder import overrides as overriding
from vocoder.errors import InputError
from vocoder.kinds import check_finite, checked
from vocoder.overrides import NO_TARGETS, hydra_errors_as_input_errors
from vocoder.paths import user_path
from vocoder.registry import known

log = logging.getLogger("vocoder")


def asset(name: str) -> Path:
    """The path of `configs` or `data/demo`: inside an installed package, or in the repository."""
    installed = Path(__file__).parent / "assets" / name
    return installed if installed.exists() else Path(__file__).parents[1] / name


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """How waveforms and their mel spectrograms are made; librosa's names.

    Attributes:
        sample_rate: Hz.
        n_fft, hop_length, win_length: Samples.
        n_mels: Number of mel bands.
        fmin, fmax: Hz; `fmax=None` is half the sample rate.
        log: "natural" (HiFi-GAN, Vocos, BigVGAN) or "log10" (DAC).
        floor: Smallest mel magnitude before the logarithm.
        power: Exponent of the magnitude spectrogram: 1 or 2.
        padding: "same": (n_fft - hop_length) / 2 samples reflected on each side, so that there are
            samples / hop_length frames (HiFi-GAN). "center": n_fft / 2, as in librosa and torch;
            the one more frame that this gives at the end is left out.
        htk: HTK's mel scale instead of Slaney's.
        norm: "slaney" for bands of equal area, None for bands of equal height.
        magnitude_epsilon: Added to the squared magnitude before the root, which keeps gradients
            finite at silence (1e-9 in HiFi-GAN).

    Raises:
        ValueError: "argument: reason".
    """

    sample_rate: int = 22050
    n_fft: int = 1024
    hop_length: int = 256
    win_length: int = 1024
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float | None = 8000.0
    log: str = "natural"
    floor: float = 1e-5
    power: float = 1.0
    padding: str = "same"
    htk: bool = False
    norm: str | None = "slaney"
    magnitude_epsilon: float = 1e-9

    def __post_init__(self):
        check_window(self.n_fft, self.hop_length, self.win_length)
        check_bands(self.sample_rate, self.n_mels, self.fmin, self.fmax, self.norm)
        check_log(self.log, self.floor)
        if isinstance(self.power, bool) or self.power not in (1, 2):
            raise ValueError(f"power: must be 1 or 2, not {self.power!r}")
        if self.padding not in ("same", "center"):
            raise ValueError(f'padding: must be "same" or "center", not {self.padding!r}')
        check_bool("htk", self.htk)
        check_number("magnitude_epsilon", self.magnitude_epsilon, 0, 1)
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length: {self.hop_length} is longer than n_fft ({self.n_fft})")
        if self.padding == "same" and (self.n_fft - self.hop_length) % 2:
            nearest = either(self.hop_length - 1, self.hop_length + 1)
            raise ValueError(
                f'hop_length: with padding "same", {self.hop_length} must be n_fft ({self.n_fft}) '
                f'less an even number; {nearest} would do, or padding "center"'
            )

    @property
    def margins(self) -> tuple[int, int]:
        """Samples (left, right) that the mel of a segment needs beyond the segment's ends.

        Frame i of an utterance covers the samples from `i * hop_length - left` on.
        """
        return frame_margins(self.n_fft, self.hop_length, self.padding)


def frame_margins(n_fft: int, hop_length: int, padding: str) -> tuple[int, int]:
    """Samples (left, right) around whole hops of a signal that make them as many frames.

    Frame i then begins `left` samples before sample `i * hop_length`. Where hops are so long that
    the last frame ends before the signal does, there are none on the right.
    """
    left = (n_fft - hop_length) // 2 if padding == "same" else n_fft // 2
    return left, max(0, n_fft - hop_length - left)


# What is larger than any mel of audio, so that a config from a stranger can't ask for all memory.
MOST_SAMPLES, MOST_BANDS, HIGHEST_RATE = 2**16, 2**10, 1_000_000


def check_window(n_fft: int, hop_length: int, win_length: int) -> None:
    """Raises `ValueError("argument: reason")` unless the three lengths fit together."""
    for name, value in {"n_fft": n_fft, "hop_length": hop_length, "win_length": win_length}.items():
        check_whole(name, value, 1, MOST_SAMPLES)
    if win_length > n_fft:
        raise ValueError(f"win_length: {win_length} is longer than n_fft ({n_fft})")


def check_bands(sample_rate, n_mels: int, fmin, fmax, norm) -> None:
    """Raises `ValueError("argument: reason")` unless a mel filterbank can be made of these."""
    check_whole("sample_rate", sample_rate, 1, HIGHEST_RATE)
    check_number("fmin", fmin)
    highest = sample_rate / 2
    if fmax is not None:
        check_number("fmax", fmax)
        if fmax > highest:
            raise ValueError(f"fmax: {fmax:g} is above half the sample rate ({highest:g})")
    if not 0 <= fmin < (highest if fmax is None else fmax):
        raise ValueError(f"fmin: {fmin:g} is not between 0 and fmax ({fmax})")
    check_whole("n_mels", n_mels, 1, MOST_BANDS)
    if norm not in (None, "slaney"):
        raise ValueError(f'norm: must be "slaney" or null, not {norm!r}')


def check_log(log: str, floor: float) -> None:
    """Raises `ValueError("argument: reason")` for an unknown logarithm or a floor of 0."""
    if log not in ("natural", "log10"):
        raise ValueError(f'log: must be "natural" or "log10", not {log!r}')
    check_number("floor", floor, 1e-30, 1)


def check_whole(name: str, value, least: int = 1, most: int | None = None) -> None:
    """Raises `ValueError("name: reason")` unless `value` is a whole number in that range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name}: must be a whole number, not {reprlib.repr(value)}")
    _check_range(name, value, least, most)


def check_number(name: str, value, least: float | None = None, most: float | None = None) -> None:
    """Raises `ValueError("name: reason")` unless `value` is a finite number in that range."""
    of_kind = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not of_kind or not abs(value) < 1e30:
        raise ValueError(f"{name}: must be a finite number, not {reprlib.repr(value)}")
    _check_range(name, value, least, most)


def check_bool(name: str, value) -> None:
    """Raises `ValueError("name: reason")` unless `value` is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: must be true or false, not {reprlib.repr(value)}")


def check_list(name: str, values, most: int = 64) -> None:
    """Raises `ValueError("name: reason")` unless `values` are a list of one to `most`."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name}: must be a list, such as [a,b], not {reprlib.repr(values)}")
    if not 1 <= len(values) <= most:
        raise ValueError(f"{name}: there must be one to {most}, not {len(values)}")


def check_each(name: str, values, least: int = 1, most: int | None = None, count: int = 64) -> None:
    """Raises `ValueError("name: reason")` unless `values` are a list of whole numbers in range."""
    check_list(name, values, count)
    for value in values:
        check_whole(name, value, least, most)


def check_precision(name: str, precision: str) -> None:
    """Raises `ValueError("name: reason")` unless it is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ValueError(f"{name}: unknown {reprlib.repr(precision)} (known: {known})")


def either(*values: int, least: int = 1) -> str:
    """What would do in place of a value that doesn't: those of two that are large enough."""
    return " or ".join(str(value) for value in values if value >= least)


def _check_range(name, value, least, most):
    if least is not None and value < least:
        raise ValueError(f"{name}: must be at least {least}, not {value}")
    if most is not None and value > most:
        raise ValueError(f"{name}: must be at most {most}, not {reprlib.repr(value)}")


@dataclasses.dataclass
class DataConfig:
    """Where the recordings are and how segments are drawn from them.

    Attributes:
        root: Folder of the corpus; paths in file lists are relative to it.
        include: Glob patterns below `root`, as `pathlib` reads them ("**/*.wav").
        train_list, validation_list: Text files, a path a line (up to a `|`, with or without the
            extension). With both, nothing is searched for and nothing is split. With
            `validation_list` alone, the rest of the folder trains; the files of `train_list`
            alone are split by `validation_fraction`.
        validation_fraction: Share of the files that validates, picked by a hash of the path.
        mels: Folder of `.npy` mels, (frames, n_mels) or (n_mels, frames), laid out as the audio,
            to train on instead of the audio's own (fine-tuning on an acoustic model's output).
        batch_size: Segments a step, over all devices.
        segment_length: Samples; a multiple of `audio.hop_length`.
        validation_segments: How many segments of the validation files are measured.
        resample: Whether files of another rate are resampled (soxr) instead of refused.
        stereo: "mix" down to mono or "refuse".
        max_bad_fraction: Share of the files that may be bad (broken, silent, at another rate); they
            are left out and listed in the run's quarantine.csv. More end the run.
        gain_db: [lowest, highest] random gain of a training segment in dB, or null for none.
        cache: Folder of the corpus indexes; null for the user's cache folder.
        threads: Batches read at a time.
    """

    root: str
    include: list[str] = dataclasses.field(default_factory=lambda: ["**/*"])
    train_list: str | None = None
    validation_list: str | None = None
    validation_fraction: float = 0.05
    mels: str | None = None
    batch_size: int = 16
    segment_length: int = 8192
    validation_segments: int = 64
    resample: bool = False
    stereo: str = "mix"
    max_bad_fraction: float = 0.01
    gain_db: list[float] | None = None
    cache: str | None = None
    threads: int = 2


@dataclasses.dataclass
class TrainerConfig:
    """How long and by what means a generator is trained.

    Attributes:
        max_steps: Batches, counted over all sessions of the run.
        max_minutes: Stop after so many minutes of training (validation is none), over all sessions
            of the run; null for no such end.
        learning_rate: The highest of the schedule.
        schedule: "constant", "exponential" (times `decay_rate` every `decay_steps`) or "cosine"
            (after `warmup_steps` down to `final_rate` times the rate at the end of the run, be it
            by steps or by minutes).
        decay_rate, decay_steps, warmup_steps, final_rate: Of the schedule.
        beta_1, beta_2, weight_decay: AdamW's.
        global_clipnorm: Largest norm of all gradients together, or null.
        gradient_accumulation_steps: Batches that share one update; 1 for none.
        ema_momentum: Of the weights' moving average, which is then what is evaluated and saved;
            null for none.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
        rematerialization: Compute what is inside the generator's blocks once more for the gradient
            instead of keeping it, for less memory.
        jit_compile: XLA; slower on CPUs, and on one device only.
        strategy: "auto", "none", "mirrored" (the GPUs of this machine) or "multi_worker".
        deterministic: The same to the last bit each time, by TensorFlow's op determinism; slower.
        validate_every, checkpoint_every, log_every: Steps.
        keep_checkpoints: How many of the last ones are kept; the best is kept besides.
        samples: How many validation utterances are written as audio and pictures at every
            validation.
        validation_metrics: Names of `registry.METRICS`, to measure at every validation.
        validation_utterances: How many validation utterances (the first ten seconds of each) they
            are the means over.
        best: What tells the best checkpoint: "loss", a part of it, or a measure of a metric.
        max_bad_steps: How many steps in a row may be skipped because a loss or the gradient was NaN
            or infinite.
        resume: A run folder to go on from, or "auto": this run's own if it has a checkpoint.
        pretrained, pretrained_discriminators: `.keras` files (for the generator a run, too) whose
            weights a new run begins with; of the networks that the config describes.
        discriminator_start: Step up to which the generator learns from reconstruction alone.
        discriminator_warmup: Steps after it in which only the discriminators meet the new losses.
        discriminator_learning_rate: Null for `learning_rate`; the schedule is the same, counted in
            the discriminators' own steps.
    """

    max_steps: int = 1_000_000
    max_minutes: float | None = None
    learning_rate: float = 2e-4
    beta_1: float = 0.8
    beta_2: float = 0.99
    weight_decay: float = 0.01
    schedule: str = "exponential"
    decay_rate: float = 0.999
    decay_steps: int = 1000
    warmup_steps: int = 0
    final_rate: float = 0.0
    global_clipnorm: float | None = None
    gradient_accumulation_steps: int = 1
    ema_momentum: float | None = None
    precision: str = "float32"
    rematerialization: bool = False
    jit_compile: bool = False
    strategy: str = "auto"
    deterministic: bool = False
    validate_every: int = 1000
    checkpoint_every: int = 5000
    log_every: int = 100
    keep_checkpoints: int = 3
    samples: int = 3
    validation_metrics: list[str] = dataclasses.field(default_factory=list)
    validation_utterances: int = 8
    best: str = "loss"
    max_bad_steps: int = 10
    resume: str | None = None
    pretrained: str | None = None
    pretrained_discriminators: str | None = None
    discriminator_start: int = 0
    discriminator_warmup: int = 0
    discriminator_learning_rate: float | None = None


@dataclasses.dataclass
class RunConfig:
    """Everything that makes a run.

    `generator`, `discriminator` and `loss` are nodes for the registry.
    """

    audio: AudioConfig
    generator: dict[str, Any]
    discriminator: dict[str, Any]
    loss: dict[str, Any]
    data: DataConfig
    trainer: TrainerConfig
    seed: int

    @classmethod
    def from_omegaconf(cls, node) -> "RunConfig":
        """Converts a composed config and checks it.

        Raises:
            InputError: A value is missing, of a wrong type or out of range.
        """
        plain = as_plain(node)
        sections = [field.name for field in dataclasses.fields(cls)]
        for key in plain:
            known(key, sections, key)
        for key in sections:
            if key not in plain:
                raise InputError(f"{key}: missing from the config; every run has one")
            if key != "seed" and not isinstance(plain[key], dict):
                raise InputError(f"{key}: must be a mapping, not {plain[key]!r}")
        config = cls(
            audio=_typed(AudioConfig, plain["audio"], "audio"),
            generator=plain["generator"],
            discriminator=plain["discriminator"],
            loss=plain["loss"],
            data=_typed(DataConfig, plain["data"], "data"),
            trainer=_typed(TrainerConfig, plain["trainer"], "trainer"),
            seed=plain["seed"],
        )
        config.check()
        return config

    def check(self) -> None:
        """Checks what no single constructor can see.

        Raises:
            InputError: Names the key.
        """
        trainer = self.trainer
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:  # NumPy's
            raise InputError(
                f"seed: must be a whole number of at least 0 and below 2^32, not {self.seed!r}"
            )
        at_least_one = (
            "max_steps",
            "decay_steps",
            "validate_every",
            "checkpoint_every",
            "log_every",
            "validation_utterances",
        )
        for key in (*at_least_one, "keep_checkpoints", "gradient_accumulation_steps"):
            if getattr(trainer, key) < 1:
                raise InputError(f"trainer.{key}: must be at least 1, not {getattr(trainer, key)}")
        for key in (
            "learning_rate",
            "discriminator_learning_rate",
            "global_clipnorm",
            "max_minutes",
        ):
            value = getattr(trainer, key)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"trainer.{key}: must be above 0, not {value}")
        for key in ("beta_1", "beta_2", "ema_momentum"):
            value = getattr(trainer, key)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"trainer.{key}: must be in [0, 1), not {value}")
        for key in ("decay_rate", "final_rate"):
            if not 0 <= getattr(trainer, key) <= 1:
                raise InputError(f"trainer.{key}: must be in [0, 1], not {getattr(trainer, key)}")
        if trainer.warmup_steps and trainer.schedule != "cosine":
            raise InputError("trainer.warmup_steps: only trainer.schedule=cosine warms up")
        if trainer.warmup_steps >= trainer.max_steps:
            raise InputError(
                f"trainer.warmup_steps: {trainer.warmup_steps} must be below trainer.max_steps "
                f"({trainer.max_steps})"
            )
        for key in (
            "weight_decay",
            "samples",
            "warmup_steps",
            "max_bad_steps",
            "discriminator_start",
            "discriminator_warmup",
        ):
            if getattr(trainer, key) < 0:
                raise InputError(f"trainer.{key}: must be 0 or more, not {getattr(trainer, key)}")
        if self.discriminator.get("parts"):
            left = trainer.max_steps - trainer.discriminator_start
            if left <= trainer.warmup_steps:
                raise InputError(
                    f"trainer.discriminator_start: {trainer.discriminator_start} leaves {left} of "
                    f"trainer.max_steps={trainer.max_steps} to the discriminators, which is not "
                    f"more than trainer.warmup_steps ({trainer.warmup_steps})"
                )
        elif trainer.pretrained_discriminators:
            raise InputError(
                "trainer.pretrained_discriminators: there are no discriminators to begin with them;"
                " discriminator=mpd_msd, for example"
            )
        if trainer.precision not in PRECISIONS:
            raise InputError(
                f"trainer.precision: unknown {trainer.precision!r} (known: {', '.join(PRECISIONS)})"
            )
        for section in ("audio", "data", "trainer"):
            for key, value in vars(getattr(self, section)).items():
                check_finite(value, f"{section}.{key}")


PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def nearest_multiple(value: int, factor: int) -> int:
    """The multiple of `factor` closest to `value`, at least `factor`."""
    return max(1, round(value / factor)) * factor


# Keys that are paths, in which `~` is a home folder as in a shell.
PATHS = {
    "data": ("root", "train_list", "validation_list", "mels", "cache"),
    "trainer": ("resume", "pretrained", "pretrained_discriminators"),
}


def _typed(cls, values: dict, section: str):
    """An instance of a dataclass of plain data."""
    kinds = typing.get_type_hints(cls)
    arguments = {}
    for name, value in values.items():
        key = f"{section}.{name}"
        kind = kinds[known(name, kinds, key)]
        arguments[name] = checked(value, kind, key)
        if name in PATHS.get(section, ()) and (value or "").startswith("~"):
            arguments[name] = str(_path(value, key))
    for field in dataclasses.fields(cls):
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in arguments:
            raise InputError(f"{section}.{field.name}: missing; give {section}.{field.name}=VALUE")
    try:
        return cls(**arguments)
    except ValueError as error:  # of the dataclass itself
        raise InputError(f"{section}.{error}") from error


def _path(text: str, key: str) -> Path:
    try:
        return user_path(text)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error


def as_plain(node) -> dict:
    """A composed config as plain data, every interpolation resolved, once.

    Raises:
        InputError: A value is missing or can't be resolved, there is a `_target_`, or a text still
            looks like an interpolation, which could read anything if it were resolved once more.
    """
    from omegaconf import OmegaConf

    with hydra_errors_as_input_errors():
        for key in sorted(OmegaConf.missing_keys(node)):
            raise InputError(f"{key}: missing; give {key}=VALUE")
        plain = OmegaConf.to_container(node, resolve=True)
    for key, text in _texts(plain):
        if text == "_target_":
            raise InputError(f"{key}.{NO_TARGETS}")
        if "${" in text and key != "trainer.resume":
            raise InputError(
                f"{key}: {text!r} looks like an interpolation after all have been resolved; "
                "a text without ${ would do"
            )
    return plain


def _texts(node, key=""):
    """Every text in plain data, keys of mappings included, with the key where it stands."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, (dict, list)):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield key, str(name)
            yield from _texts(value, f"{key}.{name}" if key else str(name))


OVERRIDES = "overrides.yaml"


def register_resolvers() -> None:
    """Makes what the configs call known to OmegaConf.

    `${asset:NAME}` is a file that comes with the package; `${run_folder:RESUME,NEW}` the folder of
    the run that RESUME (a run or a checkpoint in it) belongs to, or NEW.
    """
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("asset", _asset, replace=True)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)


def _asset(name: str) -> str:
    return str(asset(known(name, ("configs", "data/demo"), "asset")))


def _run_folder(resume: str | None, new: str) -> str:
    if not isinstance(resume, str) or resume == "auto":
        return new
    path = user_path(resume)
    if not path.is_dir():
        return new
    return str(path.parents[1] if path.parent.name == "checkpoints" else path)


def with_resumed_overrides(node, overrides: list[str]):
    """Composes the config of a resumed run again: what it was started with, then `overrides`.

    Args:
        node: The composed config.
        overrides: The overrides of this command.

    Returns:
        The config, and the overrides to keep in the run's folder for a later session.

    Raises:
        InputError: `trainer.resume` is no run folder, its overrides are not plain ones, or an
            override does not apply.
    """
    from hydra import compose
    from omegaconf import OmegaConf

    with hydra_errors_as_input_errors():
        resume = checked(OmegaConf.select(node, "trainer.resume"), str | None, "trainer.resume")
    if resume not in (None, "auto"):
        if not _path(resume, "trainer.resume").is_dir():
            raise InputError(f"trainer.resume: {resume} is not a folder")
        started_with = Path(_run_folder(resume, "")) / OVERRIDES
        if not started_with.exists():
            raise InputError(f"trainer.resume: {resume} is no run folder: it has no {OVERRIDES}")
        earlier = overriding.read(started_with)
        given = {overriding.parsed(text).key_or_group for text in overrides}
        overrides = [o for o in earlier if o not in overrides] + overrides
        with hydra_errors_as_input_errors():
            node = compose("train", overrides)
        if not given & {"data", "data.cache"}:
            _check_cache(node)
    return node, _to_keep(overrides, as_plain(node))


def _check_cache(node) -> None:
    """Leaves the cache of a resumed run's config out, unless there are indexes in it already.

    The config may be a stranger's, and is not to say where in this machine anything is written.
    """
    from omegaconf import OmegaConf

    cache = OmegaConf.select(node, "data.cache")
    if isinstance(cache, str) and not any(_path(cache, "data.cache").glob("index-*.npz")):
        log.warning(
            "data.cache: the run's own, %s, holds no index; give data.cache=FOLDER to have one "
            "elsewhere than in your cache folder",
            cache,
        )
        node.data.cache = None


def _to_keep(overrides: list[str], plain: dict) -> list[str]:
    """The overrides that a later session reads, as it accepts them.

    `trainer.resume` is left out. What reads the environment is written as what it read.
    """
    kept = []
    for text in overrides:
        override = overriding.parsed(text)
        key = override.key_or_group
        if key == "trainer.resume":
            continue
        try:
            overriding.check_plain(text)
        except InputError:
            value = plain
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                plus = "+" * (len(text) - len(text.lstrip("+")))
                text = plus + overriding.written(key, value)
        kept.append(text)
    return kept
