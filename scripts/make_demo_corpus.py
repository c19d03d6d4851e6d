"""Makes the demo corpus: a few minutes of synthetic speech in several voices.

Each line of `data/demo/sentences.txt` is spoken once, by a voice that depends only on the line's
number. flite and espeak-ng speak; the clips become 22,050 Hz mono 16-bit FLAC files named
`<voice>/<voice>_NNN.flac`, where NNN is the line's number. The audio of an earlier run in the same
folder is replaced. Run it from anywhere:

    python scripts/make_demo_corpus.py [--out FOLDER]
"""

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import librosa
import numpy as np
import soundfile

DEMO = Path(__file__).resolve().parents[1] / "data" / "demo"
SAMPLE_RATE = 22050
PEAK = 0.7
SILENCE_DB = 45  # this far below a clip's loudest frame is silence
KEPT_SILENCE = 0.12  # seconds kept on either side of speech; longer pauses are shortened
SHORTEST, LONGEST = 1.5, 8.0  # seconds

# Name of the voice's folder -> program and its name for the voice.
VOICES = {
    "slt": ("flite", "slt"),
    "rms": ("flite", "rms"),
    "awb": ("flite", "awb"),
    "kal16": ("flite", "kal16"),
    "espeak-us": ("espeak-ng", "en-us"),
    "espeak-rp": ("espeak-ng", "en-gb-x-rp"),
    "espeak-f3": ("espeak-ng", "en-us+f3"),
}
# Who speaks the first 13 sentences; then from the beginning again.
TURNS = (
    *("slt", "rms", "awb", "kal16", "espeak-us", "slt", "rms"),
    *("espeak-rp", "awb", "slt", "kal16", "rms", "espeak-f3"),
)


class CorpusError(Exception):
    """The corpus can't be made; the message is one line."""


def check_programs():
    """Raises `CorpusError` unless both synthesisers and all of flite's voices are there."""
    for program in sorted({program for program, _ in VOICES.values()}, reverse=True):
        if shutil.which(program) is None:
            raise CorpusError(f"{program}: not found; install it with: apt-get install {program}")
    known = subprocess.run(["flite", "-lv"], capture_output=True, text=True).stdout.split()
    for program, voice in VOICES.values():
        if program == "flite" and voice not in known:
            raise CorpusError(f"flite: has no voice {voice}; `flite -lv` lists those it has")


def speak(text, program, voice):
    """Returns `text` as spoken by `voice`, in mono at the program's own rate, and that rate."""
    with tempfile.TemporaryDirectory() as folder:
        wav = str(Path(folder) / "speech.wav")
        if program == "flite":
            command = ["flite", "-voice", voice, "-t", text, "-o", wav]
        else:
            command = ["espeak-ng", "-v", voice, "-w", wav, "--", text]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            reason = " ".join(result.stderr.split())
            raise CorpusError(f"{program}: failed with voice {voice}: {reason}")
        return soundfile.read(wav, dtype="float32")


def shorten_silences(samples):
    """Cuts all silence that is more than `KEPT_SILENCE` away from speech."""
    margin = int(KEPT_SILENCE * SAMPLE_RATE)
    keep = np.zeros(len(samples), bool)
    for start, end in librosa.effects.split(
        samples, top_db=SILENCE_DB, frame_length=1024, hop_length=256
    ):
        keep[max(start - margin, 0) : end + margin] = True
    return samples[keep]


def make_clip(text, voice):
    """Returns the finished clip of `text`: float32 samples at `SAMPLE_RATE`."""
    samples, rate = speak(text, *VOICES[voice])
    if not np.any(samples):
        raise CorpusError(f"{voice}: is silent on: {text}")
    samples = librosa.resample(samples, orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
    samples = shorten_silences(samples)
    if not SHORTEST <= len(samples) / SAMPLE_RATE <= LONGEST:
        seconds = len(samples) / SAMPLE_RATE
        raise CorpusError(f"{voice}: {seconds:.1f} s, not {SHORTEST} to {LONGEST} s, on: {text}")
    return samples * (PEAK / np.abs(samples).max())


def make_corpus(out):
    """Writes every clip below the folder `out` and prints a table of what was written."""
    check_programs()
    sentences = (DEMO / "sentences.txt").read_text(encoding="utf-8").split("\n")
    sentences = [sentence.strip() for sentence in sentences if sentence.strip()]
    clips = [
        (f"{voice}_{number:03d}.flac", voice, make_clip(text, voice))
        for number, (text, voice) in enumerate(
            zip(sentences, itertools.cycle(TURNS), strict=False), start=1
        )
    ]

    rows = []
    for voice in VOICES:
        folder = out / voice
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{voice}_*.flac"):
            old.unlink()
        own = [(name, samples) for name, speaker, samples in clips if speaker == voice]
        for name, samples in own:
            soundfile.write(folder / name, samples, SAMPLE_RATE, subtype="PCM_16")
        seconds = sum(len(samples) for _, samples in own) / SAMPLE_RATE
        rows.append((voice, len(own), seconds, sum((folder / n).stat().st_size for n, _ in own)))

    rows.append(("total", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    print("| voice | clips | seconds | bytes |\n|---|---:|---:|---:|")
    for voice, count, seconds, size in rows:
        print(f"| {voice} | {count} | {seconds:.1f} | {size:,} |")


def main():
    """Reads the command line; ends with exit code 2 and one line if the corpus can't be made."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=DEMO, help="folder of the clips (default: data/demo)"
    )
    try:
        make_corpus(parser.parse_args().out)
    except CorpusError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
