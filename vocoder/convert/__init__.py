"""Imports a published checkpoint: `python -m vocoder.convert CKPT CONFIG OUT.keras`.

Which network it is says its config: HiFi-GAN (`generator_v1` or `g_02500000` and `config.json`,
github.com/jik876/hifi-gan), BigVGAN (`bigvgan_generator.pt` and `config.json`,
github.com/NVIDIA/BigVGAN), or Vocos for mels (`pytorch_model.bin` and `config.yaml`,
github.com/gemelo-ai/vocos). Weight normalisation is folded, and the generator written to a
`.keras` file. Needs PyTorch (`pip install vocoder[torch]`), which reads the checkpoint with
`weights_only=True`, and YAML is read as data: no code in these files runs.
"""

import argparse
import os
from pathlib import Path

from vocoder.convert import bigvgan, hifigan, reading, vocos
from vocoder.errors import InputError, exit_on_input_error

# Each says whether a config is its own (`matches`), builds the generator of it (`build`), gives the
# original's names of its variables (`variables`), and which names of a checkpoint are none
# (`is_buffer`). The first that matches counts.
FORMATS = (vocos, bigvgan, hifigan)


def convert(checkpoint: Path, config: Path, out: Path):
    """Converts a checkpoint and returns the generator.

    Raises:
        InputError: A file can't be read, or names or shapes differ: one line for each.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if out.suffix != ".keras":
        raise InputError(f"{out}: the output's name must end in .keras")
    settings = reading.read_config(config)
    kind = next(kind for kind in FORMATS if kind.matches(settings))
    try:
        generator = kind.build(settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{config}: {error}") from error
    generator.build((None, None, generator.n_mels))
    state = {
        name: value
        for name, value in reading.read_checkpoint(checkpoint).items()
        if not kind.is_buffer(name)
    }
    reading.assign(kind.variables(generator), reading.fold(state), checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    generator.save(out)
    return generator


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vocoder.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the config beside it")
    parser.add_argument("out", type=Path, metavar="OUT.keras")
    options = parser.parse_args(arguments)
    with exit_on_input_error():
        generator = convert(options.checkpoint, options.config, options.out)
        print(f"{options.out}: {generator.count_params():,} parameters")
