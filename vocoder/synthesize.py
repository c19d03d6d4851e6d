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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vocoder.audio.files import check_samples
from vocoder.audio.mel_files import check_mel, open_mel, squares_have_bands_first
from vocoder.errors import InputError, blamed_on, printable
from vocoder.paths import identity, output_path, user_path
from vocoder.startup import command, devices, import_keras

# Frames of a window: the largest of these that an input has. With more, the activations of HiFi-GAN
# V2 and V3 fall out of a CPU's cache: 1024 frames are a sixth slower. Networks that reach further
# than a quarter of these have larger windows, the next power of two.
WINDOWS = (512, 256, 128)
BATCH_FRAMES = {"CPU": 512, "GPU": 16384}  # most frames at a time
FORMATS = {
    "wav": (".wav", "PCM_16"),
    "wav24": (".wav", "PCM_24"),
    "float": (".wav", "FLOAT"),
    "flac": (".flac", "PCM_16"),
}


class Vocoder:
    """A trained generator with the settings of its mel. `vocoder.load(MODEL)` makes one.

    Attributes:
        generator: The Keras model, (batch, frames, n_mels) -> (batch, frames * hop_length).
        audio: `vocoder.config.AudioConfig`.
    """

    def __init__(self, generator):
        from vocoder.audio import MelSpectrogram

        self.generator = generator
        self.audio = generator.audio
        self._mel = MelSpectrogram(**vars(self.audio))
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
        paths = generators_of(folder) if folder.is_dir() else iter([folder])
        path = next(paths, folder)
        if not path.is_file():
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
        if audio.ndim not in (1, 2) or audio.shape[-1] < self.audio.n_fft:
            raise InputError(
                f"audio: shape {audio.shape} is not (samples,), with or without a batch in front, "
                f"of at least n_fft={self.audio.n_fft} samples"
            )
        check_samples(audio, "audio")
        batch = self._mel(audio[None] if audio.ndim == 1 else audio)
        return np.array(batch[0] if audio.ndim == 1 else batch)  # a copy, which can be written to

    def synthesize(self, mel) -> np.ndarray:
        """Waveform of a mel: (frames, n_mels) -> (frames * hop_length,), or with a batch axis.

        Raises:
            InputError: The mel has another number of bands, another number of axes, or values that
                no mel has.
        """
        mel = _as_array(mel, "mel")
        if mel.ndim not in (2, 3) or mel.shape[-1] != self.audio.n_mels or 0 in mel.shape:
            raise InputError(
                f"mel: shape {mel.shape} is not (frames, {self.audio.n_mels}), "
                "with or without a batch in front"
            )
        check_mel(mel, "mel")
        batch = mel if mel.ndim == 3 else mel[None]
        hop = self.audio.hop_length
        out = np.empty((len(batch), batch.shape[1] * hop), np.float32)
        for start, size, keep in windows(batch.shape[1], self.generator.receptive_field):
            wave = self.generate(batch[:, start : start + size])
            out[:, keep.start * hop : keep.stop * hop] = _kept(wave, start, keep, hop)
        return out if mel.ndim == 3 else out[0]

    def generate(self, mel) -> np.ndarray:
        """The generator on one batch, (batch, frames, n_mels) -> (batch, frames * hop_length)."""
        return self.generator.predict_on_batch(np.asarray(mel, np.float32))


def _as_floats(audio) -> np.ndarray:
    """Samples as float32 in [-1, 1]."""
    kind = getattr(audio, "dtype", None)
    if kind == np.uint8:
        return (np.asarray(audio, np.float32) - 128) / 128
    if kind in (np.int16, np.int32):
        return (np.asarray(audio, np.float64) / -float(np.iinfo(kind).min)).astype(np.float32)
    return _as_array(audio, "audio")


def _as_array(values, what) -> np.ndarray:
    try:
        array = np.asarray(values)
        if array.dtype.kind != "f" and array.size:  # a list of whole numbers could be of any scale
            raise TypeError(f"holds {array.dtype}")
        return array.astype(np.float32)
    except (TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        samples = " in [-1, 1], or int16, int32 or uint8" if what == "audio" else ""
        raise InputError(f"{what}: {reason}; must be an array of floats{samples}") from error


def windows(frames: int, reach: int) -> Iterator[tuple[int, int, slice]]:
    """Windows over an input whose kept parts tile it.

    Only true ends of the input are ends of what is kept, and every window has the same size, so
    that windows of several inputs make a batch.

    Args:
        frames: Length of the input.
        reach: Frames on each side that an output depends on.

    Yields:
        First frame, number of frames, and the slice of the input's frames to keep.
    """
    enough = [w for w in WINDOWS if w > 4 * reach] or [2 ** (4 * reach).bit_length()]
    size = next((w for w in enough if w <= frames), frames)
    starts = [*range(0, frames - size, size - 2 * reach), frames - size]
    edges = [0, *(start + reach for start in starts[1:]), frames]
    for start, begin, end in zip(starts, edges, edges[1:], strict=False):
        yield start, size, slice(begin, end)


def _kept(wave, start, keep, hop_length):
    return wave[:, (keep.start - start) * hop_length : (keep.stop - start) * hop_length]


class _Job:
    """One input: its mel a window at a time, and the file that is made of it.

    Raises:
        InputError: The input can't be synthesised by this vocoder.
    """

    def __init__(self, vocoder: Vocoder, source: Path, target: Path, subtype: str):
        from vocoder.audio import files

        self.vocoder = vocoder
        self.source = source
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

    def mel(self, start: int, size: int) -> np.ndarray:
        """Frames [start, start + size), (size, n_mels)."""
        from vocoder.audio import files

        if self.mel_file is not None:
            return self.mel_file.read(start, size)
        hop, margins = self.vocoder.audio.hop_length, self.vocoder.audio.margins
        samples = files.read_segment(
            self.source, start * hop, size * hop, margins, frames=self._samples
        )
        return np.asarray(self.vocoder.mel_of_margins(samples[None]))[0]

    @property
    def _partial(self):
        return self.target.with_name(f".{self.target.name}.partial")

    def fail(self, error: InputError) -> None:
        """Gives the input up; what was written of it goes."""
        self.error = error
        self.discard()

    def discard(self) -> None:
        """Takes away what has been written of a file that is not whole."""
        if self._file is not None and not self._file.closed:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def write(self, samples: np.ndarray, last: bool) -> None:
        """Adds samples to the file, which gets its name when it is whole."""
        import soundfile

        try:
            if self._file is None:
                self.target.parent.mkdir(parents=True, exist_ok=True)
                rate, kind = self.vocoder.audio.sample_rate, self.target.suffix[1:].upper()
                self._file = soundfile.SoundFile(
                    self._partial, "w", rate, 1, self.subtype, format=kind
                )
            self._file.write(np.clip(samples, -1, 1))
            if last:
                self._file.close()
                os.replace(self._partial, self.target)
        except (OSError, soundfile.SoundFileError) as error:
            raise InputError(f"{self.target}: can't be written ({error})") from error


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
        batch_frames: Most frames that are synthesised together.

    Returns:
        How many inputs failed.
    """
    begin = time.monotonic()
    failures = []

    def fail(error):
        failures.append(error)
        tqdm.write(f"error: {printable(error)}", file=sys.stderr)

    jobs = _jobs(vocoder, inputs, out, FORMATS[kind], fail)
    done, hop = 0, vocoder.audio.hop_length
    total = sum(job.frames for job in jobs)
    with (
        tqdm(total=total, unit=" frames", disable=not sys.stderr.isatty()) as bar,
        contextlib.ExitStack() as whole,
    ):
        for job in jobs:  # also of those that an interrupt leaves half done
            whole.callback(job.discard)
        for batch in _batches(jobs, vocoder.generator.receptive_field, batch_frames, fail):
            waves = vocoder.generate(np.stack([mel for *_, mel in batch]))
            for (job, start, keep, _), wave in zip(batch, waves, strict=True):
                if job.error is not None:
                    continue
                try:
                    last = keep.stop == job.frames
                    job.write(_kept(wave[None], start, keep, hop)[0], last)
                    done += keep.stop - keep.start
                except InputError as error:
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


def _jobs(vocoder, inputs, out, form, fail):
    """The inputs that can be synthesised, short ones first, so that batches are of one length."""
    suffix, subtype = form
    jobs, targets = [], {}
    sources = list(_sources(inputs, fail))
    read = {identity(source) for source, _ in sources} - {None}
    for source, name in sources:
        target = out / output_path(name, suffix)
        try:
            with blamed_on(source):
                if target in targets:
                    raise InputError(f"{source}: {target} is made of {targets[target]} already")
                if identity(target) in read:
                    raise InputError(f"{source}: {target} is an input; --out=FOLDER, another one")
                jobs.append(_Job(vocoder, source, target, subtype))
                targets[target] = source
        except InputError as error:
            fail(error)
    _turn_squares([job for job in jobs if job.mel_file is not None], vocoder.audio.n_mels)
    return sorted(jobs, key=lambda job: job.frames)


def _turn_squares(jobs, n_mels):
    """Square mels lie as most of the others do: of the command, else of their folder."""
    squares = [job for job in jobs if job.mel_file.is_square]
    if not squares:
        return
    turned = squares_have_bands_first(_orientations(job.mel_file for job in jobs))
    for job in squares:
        here = turned
        if here is None:
            here = squares_have_bands_first(_orientations(_siblings(job.source, n_mels)))
        job.mel_file = job.mel_file._replace(bands_first=bool(here))


def _orientations(mels):
    return [mel.bands_first for mel in mels if not mel.is_square]


def _siblings(path, n_mels):
    """The mels beside a file."""
    for other in path.parent.iterdir():
        if other.suffix.lower() == ".npy":
            with contextlib.suppress(InputError):
                yield open_mel(other, n_mels)


def _sources(inputs, fail):
    """(path, relative name for the output) of each file."""
    from vocoder.audio.files import EXTENSIONS

    for path in inputs:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in {".npy", *EXTENSIONS})
            found = [p for p in found if not p.is_dir()]
            if not found:
                fail(InputError(f"{path}: no audio and no .npy in this folder"))
            yield from ((p, p.relative_to(path)) for p in found)
        elif path.exists():
            yield path, Path(path.name)
        else:
            fail(InputError(f"{path}: no such file or folder"))


def _batches(jobs, reach, batch_frames, fail):
    """Lists of (job, first frame, what to keep, mel) with windows of one size."""
    batch = []
    for job in jobs:
        for start, size, keep in windows(job.frames, reach):
            if job.error is not None:
                break
            try:
                with blamed_on(job.source):
                    mel = job.mel(start, size)
            except InputError as error:
                job.fail(error)
                fail(error)
                break
            if batch and (len(batch[0][-1]) != size or (len(batch) + 1) * size > batch_frames):
                yield batch
                batch = []
            batch.append((job, start, keep, mel))
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
        if out.exists() and not out.is_dir():
            raise InputError(f"--out: {out} is a file, not a folder")
        for path in inputs:
            if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
                raise InputError(
                    f"--out: {out} is inside of the input {path}, where what is made would pass "
                    "for recordings; give another folder"
                )
        if options.batch_frames is not None and options.batch_frames < 1:
            raise InputError(f"--batch-frames: must be at least 1, not {options.batch_frames}")
        import_keras()
        vocoder = Vocoder.load(options.model)
        batch_frames = options.batch_frames or BATCH_FRAMES["GPU" if devices("gpu") else "CPU"]
        failed = synthesize_files(vocoder, inputs, out, options.format, batch_frames)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
