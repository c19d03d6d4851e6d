"""Makes audio: `python -m vocoder.synthesize MODEL INPUT... --out DIR`.

MODEL is a run folder, a checkpoint of one, or a `.keras` file. INPUT is audio (copy synthesis: its
mel is made first) or mels (`.npy`), files or folders of them. Long input is synthesised in windows
that overlap by the network's receptive field, so that memory does not grow with length and the
result is that of the whole.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vocoder.audio.files import check_samples
from vocoder.audio.mel_files import check_mel, odd_range, open_mel, squares_have_bands_first
from vocoder.errors import InputError, blamed_on, printable
from vocoder.paths import (
    create,
    identity,
    is_inside,
    make_output_folder,
    output_path,
    user_path,
)
from vocoder.startup import command, devices, import_keras

# Frames of a window: the largest of these that an input has. With more, the activations of HiFi-GAN
# V2 and V3 fall out of a CPU's cache: 1024 frames are a sixth slower. Networks that reach further
# than a quarter of these have larger windows, the next power of two.
WINDOWS = (512, 256, 128)
BATCH_FRAMES = {"CPU": 512, "GPU": 16384}  # most frames at a time
MEL_FRAMES = 4096  # most frames whose mel is made at a time
FORMATS = {
    "wav": (".wav", "PCM_16"),
    "wav24": (".wav", "PCM_24"),
    "float": (".wav", "FLOAT"),
    "flac": (".flac", "PCM_16"),
}


class Vocoder:
    """A trained generator with the settings of its mel. `vocoder.load(MODEL)` makes one.

    Attributes:
        generator: The Keras model, features by name -> (batch, frames * hop_length).
        audio: `vocoder.audio.settings.AudioConfig`.
    """

    def __init__(self, generator):
        from vocoder.audio import MelSpectrogram

        self.generator = generator
        self.audio = generator.audio
        self.mel_of_margins = MelSpectrogram(**(vars(self.audio) | {"padding": "valid"}))

    @classmethod
    def load(cls, model) -> "Vocoder":
        """Loads a run folder, a checkpoint folder or a `.keras` file.

        Raises:
            InputError: There is no model, it is none of this package's, or it holds what could run
                code or lead out of the file (see SECURITY.md).
        """
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from vocoder.safe_files import load_generator
        from vocoder.training.run_folder import generators_of

        folder = user_path(model)
        paths = generators_of(folder) if os.path.isdir(folder) else iter([folder])
        path = next(paths, folder)
        if not os.path.isfile(path):
            raise InputError(
                f"{model}: no model; give a run folder, one of its checkpoints or a .keras file"
            )
        try:
            generator = load_generator(path)
        except InputError as error:
            other = next(paths, None)
            if other is None:
                raise
            raise InputError(f"{error}; {other} may be whole") from error
        if generator.audio is None:
            raise InputError(f"{path}: no generator of vocoder with its audio settings")
        return cls(generator)

    def mel(self, audio) -> np.ndarray:
        """Log-mel spectrogram: (samples,) -> (frames, n_mels), or with a batch axis in front.

        Args:
            audio: Floats in [-1, 1], or int16, int32 or uint8 as in WAV files, whose range is
                scaled to that.

        Raises:
            InputError: The shape is another, there are fewer than `n_fft` samples, or samples that
                are no numbers or far beyond full scale.
        """
        audio = _as_floats(audio)
        if audio.ndim not in (1, 2) or audio.shape[-1] < self.audio.n_fft or not len(audio):
            raise InputError(
                f"audio: shape {audio.shape} is not (samples,), with or without a batch in front, "
                f"of at least n_fft={self.audio.n_fft} samples"
            )
        check_samples(audio, "audio")
        batch = audio if audio.ndim == 2 else audio[None]
        hop, margins = self.audio.hop_length, self.audio.margins
        frames = batch.shape[1] // hop
        mel = np.empty((len(batch), frames, self.audio.n_mels), np.float32)
        padded = np.pad(batch, [(0, 0), margins], mode="reflect")
        step = max(1, MEL_FRAMES // len(batch))
        for start in range(0, frames, step):
            stop = min(start + step, frames)
            stretch = padded[:, start * hop : stop * hop + sum(margins)]
            mel[:, start:stop] = self.mel_of_margins(stretch)
        return mel if audio.ndim == 2 else mel[0]

    def features(self, audio) -> dict[str, np.ndarray]:
        """What the generator takes of a recording, by name, each as `mel` would give it.

        Raises:
            InputError: As `mel` does.
        """
        return {"mel": self.mel(audio)}

    def synthesize(self, features) -> np.ndarray:
        """Waveform of features: (frames, ...) -> (frames * hop_length,), or with a batch axis.

        Args:
            features: By name, as the generator takes them; or the mel alone, (frames, n_mels).

        Raises:
            InputError: One is missing; the mel has another number of bands, another number of axes,
                or values that no mel has.
        """
        features = features if isinstance(features, Mapping) else {"mel": features}
        if missing := [name for name in self.generator.inputs if name not in features]:
            raise InputError(f"{', '.join(missing)}: missing; the model needs it, too")
        mel = _as_array(features["mel"], "mel")
        if mel.ndim not in (2, 3) or mel.shape[-1] != self.audio.n_mels or 0 in mel.shape:
            turned = mel.ndim in (2, 3) and mel.shape[-2] == self.audio.n_mels
            raise InputError(
                f"mel: shape {mel.shape} is not (frames, {self.audio.n_mels}), "
                f"with or without a batch in front{'; swap the last two axes' if turned else ''}"
            )
        check_mel(mel, "mel")
        batch = {"mel": mel if mel.ndim == 3 else mel[None]}
        count, frames = batch["mel"].shape[:2]
        hop = self.audio.hop_length
        out = np.empty((count, frames * hop), np.float32)
        most = _batch_frames()
        for start, size, keep in windows(frames, self.generator.receptive_field, most):
            step = max(1, most // size)
            for i in range(0, count, step):
                part = slice(i, i + step), slice(start, start + size)
                wave = self.generate({name: values[part] for name, values in batch.items()})
                kept = _kept(wave, start, keep, hop)
                _check_made(kept, "mel")
                out[i : i + step, keep.start * hop : keep.stop * hop] = kept
        return out if mel.ndim == 3 else out[0]

    def generate(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """The generator on one batch, (batch, frames, ...) -> (batch, frames * hop_length)."""
        return self.generator.predict_on_batch(dict(features))


def _batch_frames():
    return BATCH_FRAMES["GPU" if devices("gpu") else "CPU"]


def _as_floats(audio) -> np.ndarray:
    """Samples as float32 in [-1, 1]: of integers, whatever their range is, it is full scale."""
    array = _as_array(audio, "audio", "fiu", " in [-1, 1], or integers of up to 32 bits")
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        return array
    full_scale = 2.0 ** (8 * size - 1)
    middle = full_scale if kind == "u" else 0.0  # of unsigned ones, as in WAV files
    return ((array.astype(np.float64) - middle) / full_scale).astype(np.float32)


def _as_array(values, what, kinds="f", more="") -> np.ndarray:
    """An array; if of floats, of float32.

    Raises:
        InputError: It is none, or of another kind. Whole numbers in 64 bits, as Python's are, could
            be of any scale.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind not in kinds or (array.dtype.kind in "iu" and array.dtype.itemsize > 4):
            raise TypeError(f"holds {array.dtype.name}")
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{what}: {reason}; must be an array of floats{more}") from error
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):  # infinity then
        return array.astype(np.float32)


def _check_made(wave, source):
    """Raises `InputError` if a network has made samples that are no numbers."""
    if not np.isfinite(wave).all():
        raise InputError(f"{source}: the model makes samples of it that are no numbers")


def windows(
    frames: int, reach: tuple[int, int], most: int | None = None
) -> Iterator[tuple[int, int, slice]]:
    """Windows over an input whose kept parts tile it.

    Only true ends of the input are ends of what is kept, and every window has the same size, so
    that windows of several inputs make a batch.

    Args:
        frames: Length of the input.
        reach: Frames before and after a frame that its samples depend on.
        most: Largest window if the reach allows it; None for any.

    Yields:
        First frame, number of frames, and the slice of the input's frames to keep.
    """
    left, right = reach
    least = 2 * (left + right)
    enough = [w for w in WINDOWS if w > least] or [2 ** least.bit_length()]
    wanted = [w for w in enough if most is None or w <= most] or enough[-1:]
    size = next((w for w in wanted if w <= frames), frames)
    starts = [*range(0, frames - size, size - left - right), frames - size]
    edges = [0, *(start + left for start in starts[1:]), frames]
    for start, begin, end in zip(starts, edges, edges[1:], strict=False):
        yield start, size, slice(begin, end)


def _kept(wave, start, keep, hop_length):
    return wave[:, (keep.start - start) * hop_length : (keep.stop - start) * hop_length]


class _Job:
    """One input: its features a window at a time, and the file that is made of it.

    Args:
        vocoder: The model.
        source: The input.
        folder: The one that was given and has it in it, or of a single file that in which it lies.
        target: What to write.
        subtype: soundfile's.

    Raises:
        InputError: The input can't be synthesised by this vocoder.
    """

    def __init__(self, vocoder: Vocoder, source: Path, folder: Path, target: Path, subtype: str):
        from vocoder.audio import files

        self.vocoder = vocoder
        self.source = source
        self.folder = folder
        self.target = target
        self.subtype = subtype
        self.error = None
        self._file = None
        audio = vocoder.audio
        self.mel_file = None
        if source.suffix.lower() == ".npy":
            self.mel_file = open_mel(source, audio.n_mels)
            self.frames = self.mel_file.frames
            return
        about = files.info(source)
        if about.sample_rate != audio.sample_rate:
            raise InputError(
                f"{source}: is at {about.sample_rate} Hz, but the model is for "
                f"{audio.sample_rate} Hz; resample it first"
            )
        self._samples = about.frames
        self.frames = about.frames // audio.hop_length
        if not self.frames:
            raise InputError(f"{source}: shorter than one frame ({audio.hop_length} samples)")

    def features(self, start: int, size: int) -> dict[str, np.ndarray]:
        """Those of the frames [start, start + size), (size, ...), by name."""
        from vocoder.audio import files

        if self.mel_file is not None:
            return {"mel": self.mel_file.read(start, size)}
        hop, margins = self.vocoder.audio.hop_length, self.vocoder.audio.margins
        samples = files.read_segment(
            self.source, start * hop, size * hop, margins, frames=self._samples
        )
        check_samples(samples, self.source)
        return {"mel": np.asarray(self.vocoder.mel_of_margins(samples[None]))[0]}

    @property
    def _partial(self):
        return self.target.with_name(f".{self.target.name}.partial")

    def fail(self, error: InputError) -> None:
        """Gives the input up; what was written of it goes."""
        self.error = error
        self.discard()

    def discard(self) -> None:
        """Takes away what has been written of a file that is not whole."""
        if self._file is not None:
            with contextlib.suppress(Exception):  # which may be why it is given up
                self._file.close()
            self._file = None
            self._partial.unlink(missing_ok=True)

    def write(self, samples: np.ndarray, last: bool) -> None:
        """Adds samples to the file, which gets its name when it is whole."""
        _check_made(samples, self.source)
        try:
            if self._file is None:
                self._file = self._created()
            self._file.write(np.clip(samples, -1, 1))
            if last:
                self._file.close()
                os.replace(self._partial, self.target)
                self._file = None
        except Exception as error:  # soundfile asserts that all was written
            reason = getattr(error, "strerror", None) or str(error) or "not all of it"
            raise InputError(f"{self.target}: can't be written ({reason})") from error

    def _created(self):
        import soundfile

        self.target.parent.mkdir(parents=True, exist_ok=True)
        return soundfile.SoundFile(
            create(self._partial),
            "w",
            self.vocoder.audio.sample_rate,
            channels=1,
            subtype=self.subtype,
            format=self.target.suffix[1:].upper(),
        )


def synthesize_files(
    vocoder: Vocoder, inputs: list[Path], out: Path, kind: str = "wav", batch_frames: int = 512
) -> int:
    """Synthesises files, a batch of windows at a time, with a progress bar.

    What can't be synthesised is told on standard error by name; the others are done all the same.

    Args:
        vocoder: The model.
        inputs: Audio files, `.npy` mels, or folders of them, whose layout is kept.
        out: Folder to write to.
        kind: A key of `FORMATS`.
        batch_frames: Most frames that are synthesised together, if a window is not more.

    Returns:
        How many inputs failed.

    Raises:
        InputError: Nothing can be written to `out`.
    """
    make_output_folder(out, "--out")
    begin = time.monotonic()
    failures = []

    def fail(error):
        failures.append(error)
        tqdm.write(f"error: {printable(error)}", file=sys.stderr)

    def note(line):
        tqdm.write(f"note: {printable(line)}", file=sys.stderr)

    jobs = _jobs(vocoder, inputs, out, FORMATS[kind], fail, note)
    done, hop = 0, vocoder.audio.hop_length
    total = sum(job.frames for job in jobs)
    with (
        tqdm(total=total, unit=" frames", disable=not sys.stderr.isatty()) as bar,
        contextlib.ExitStack() as whole,
    ):
        for job in jobs:  # also of those that an interrupt leaves half done
            whole.callback(job.discard)
        for batch in _batches(jobs, vocoder, batch_frames, fail, note):
            waves = _generated(vocoder, batch)
            for (job, start, _, keep, _), wave in zip(batch, waves, strict=True):
                if job.error is not None:
                    continue
                try:
                    if isinstance(wave, InputError):
                        raise wave
                    last = keep.stop == job.frames
                    job.write(_kept(wave[None], start, keep, hop)[0], last)
                    done += keep.stop - keep.start
                except InputError as error:
                    make_output_folder(out, "--out")  # or all that follow would fail, too
                    job.fail(error)
                    fail(error)
                bar.update(keep.stop - keep.start)
    seconds, spent = done * hop / vocoder.audio.sample_rate, time.monotonic() - begin
    written = sum(job.error is None for job in jobs)
    speed = ""
    if seconds:
        speed = f", real-time factor {spent / seconds:.3f} ({seconds / spent:.1f} x real time)"
    print(
        f"{written} of {written + len(failures)} inputs: {seconds:.1f} s of audio in "
        f"{spent:.1f} s{speed}; written to {printable(out)}"
    )
    return len(failures)


def _generated(vocoder, batch):
    """The waveform of each window of a batch, or an `InputError` if there is no memory for them."""
    names = vocoder.generator.inputs
    try:
        return vocoder.generate({n: np.stack([found[n] for *_, found in batch]) for n in names})
    except Exception as error:
        # TensorFlow's own name for it, as Keras has none.
        if not isinstance(error, MemoryError) and type(error).__name__ != "ResourceExhaustedError":
            raise
        frames = sum(size for _, _, size, *_ in batch)
        reason = f"not enough memory for {frames} frames; --batch-frames=N, fewer"
        return [InputError(f"{job.source}: {reason}") for job, *_ in batch]


def _jobs(vocoder, inputs, out, form, fail, note):
    """The inputs that can be synthesised, short ones first, so that batches are of one length."""
    suffix, subtype = form
    jobs, targets = [], {}
    sources = list(_sources(inputs, fail))
    read = {identity(source) for source, *_ in sources} - {None}
    for source, name, folder in sources:
        target = out / output_path(name, suffix)
        try:
            with blamed_on(source):
                if target in targets:
                    raise InputError(f"{source}: {target} is made of {targets[target]} already")
                if identity(target) in read:
                    raise InputError(f"{source}: {target} is an input; --out=FOLDER, another one")
                jobs.append(_Job(vocoder, source, folder, target, subtype))
                targets[target] = source
        except InputError as error:
            fail(error)
    mels = {}
    for job in jobs:
        if job.mel_file is not None:
            mels.setdefault(job.folder, []).append(job)
    for folder, group in mels.items():
        _turn_squares(folder, group, vocoder.audio.n_mels, note)
    return sorted(jobs, key=lambda job: job.frames)


def _turn_squares(folder, jobs, n_mels, note):
    """Square mels lie as most of those do that are given of their folder, else as most in it."""
    squares = [job for job in jobs if job.mel_file.is_square]
    if not squares:
        return
    turned = squares_have_bands_first(_orientations(job.mel_file for job in jobs))
    if turned is None:
        turned = squares_have_bands_first(_orientations(_mels_in(folder, n_mels)))
    for job in squares:
        job.mel_file = job.mel_file._replace(bands_first=bool(turned))
        if turned is None:
            note(f"{job.source}: has as many frames as bands; taken as (frames, n_mels)")


def _orientations(mels):
    return [mel.bands_first for mel in mels if not mel.is_square]


def _mels_in(folder, n_mels):
    for path in folder.iterdir():
        if path.suffix.lower() == ".npy":
            with contextlib.suppress(InputError):
                yield open_mel(path, n_mels)


def _sources(inputs, fail):
    """(path, relative name for the output, folder that tells how squares lie) of each file."""
    from vocoder.audio.files import EXTENSIONS

    for path in inputs:
        if not os.path.isdir(path):  # which `Path.is_dir` raises errors of, on odd names
            yield path, Path(path.name), path.parent
            continue
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in {".npy", *EXTENSIONS})
        found = [p for p in found if not os.path.isdir(p)]
        if not found:
            fail(InputError(f"{path}: no audio and no .npy in this folder"))
        yield from ((p, p.relative_to(path), path) for p in found)


def _batches(jobs, vocoder, batch_frames, fail, note):
    """Lists of (job, first frame, frames, what to keep, features) with windows of one size."""
    batch, noted = [], False
    for job in jobs:
        for start, size, keep in windows(
            job.frames, vocoder.generator.receptive_field, batch_frames
        ):
            if job.error is not None:
                break
            try:
                with blamed_on(job.source):
                    features = job.features(start, size)
            except InputError as error:
                job.fail(error)
                fail(error)
                break
            odd = job.mel_file and not noted and odd_range(features["mel"], vocoder.audio)
            if odd:
                note(f"{job.source}: {odd}; is it of another scale than the model's?")
                noted = True  # the others are no different
            if batch and (batch[0][2] != size or (len(batch) + 1) * size > batch_frames):
                yield batch
                batch = []
            batch.append((job, start, size, keep, features))
    if batch:
        yield batch


def main(arguments: list[str] | None = None) -> None:
    """The command line; exits with 1 if some inputs failed, 2 if nothing could begin."""
    with command():
        parser = argparse.ArgumentParser(
            prog="python -m vocoder.synthesize",
            description=__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("model", metavar="MODEL")
        parser.add_argument("inputs", metavar="INPUT", nargs="+", type=Path)
        parser.add_argument("--out", metavar="DIR", type=Path, required=True)
        parser.add_argument(
            "--format",
            choices=FORMATS,
            default="wav",
            help="wav: 16 bit; wav24: 24 bit; float: 32-bit float WAV; flac: 16 bit (default: wav)",
        )
        parser.add_argument(
            "--batch-frames",
            metavar="N",
            type=int,
            help="most mel frames that are synthesised together (default: {CPU} on a CPU, {GPU} on "
            "a GPU)".format(**BATCH_FRAMES),
        )
        options = parser.parse_args(arguments)
        inputs, out = [user_path(path) for path in options.inputs], user_path(options.out)
        if os.path.exists(out) and not os.path.isdir(out):
            raise InputError(f"--out: {out} is a file, not a folder")
        for path in inputs:
            if os.path.isdir(path) and is_inside(out, path):
                raise InputError(
                    f"--out: {out} is inside of the input {path}, where what is made would pass "
                    "for recordings; give another folder"
                )
        if options.batch_frames is not None and options.batch_frames < 1:
            raise InputError(f"--batch-frames: must be at least 1, not {options.batch_frames}")
        import_keras()
        vocoder = Vocoder.load(options.model)
        batch_frames = options.batch_frames or _batch_frames()
        failed = synthesize_files(vocoder, inputs, out, options.format, batch_frames)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
