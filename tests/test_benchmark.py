import importlib.util
import json
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "scripts/benchmark.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark"] = module
    spec.loader.exec_module(module)
    return module


# GFLOP per second of audio, counted by hand from the layers of the published networks.
@pytest.mark.parametrize(
    ("name", "work"),
    [("hifigan_v1", 52.9), ("hifigan_v2", 3.3), ("hifigan_v3", 3.9), ("vocos", 2.49)],
)
def test_work_of_the_published_networks(benchmark, name, work):
    generator = benchmark.built(benchmark.configured(f"generator={name}")).folded()
    assert benchmark.flops_per_second_of_audio(generator) == pytest.approx(work, rel=0.02)


def test_what_is_compared_is_the_same_training(benchmark):
    """Else the ratio of their times says nothing."""
    config = benchmark.configured(
        "data.segment_length=4096", "generator.upsample_initial_channel=16"
    )
    steps = benchmark.training_steps(config, benchmark.random_batch(config, 2))
    losses = {name: [float(step()["loss"]) for _ in range(3)] for name, step in steps.items()}
    assert len(set(losses["multi_loss"])) == 3  # it learns
    for name in ("summed_by_hand", "computed_again"):
        assert losses[name] == pytest.approx(losses["multi_loss"], rel=1e-3), name


@pytest.mark.slow
def test_prints_a_table_and_writes_json(benchmark, tmp_path, capsys):
    out = tmp_path / "new/b.json"
    rows = ["pipeline", "synthesis"]
    benchmark.main(["--rows", *rows, "--generators", "hifigan_istft", "--seconds", "0.2",
                    "--out", str(out)])  # fmt: skip
    table = json.loads(out.read_text())["rows"]
    printed = capsys.readouterr().out
    for name, row in table.items():
        (line,) = (line for line in printed.splitlines() if line.startswith(name))
        assert line.split()[len(name.split()) :] == [
            text for key, value in row.items() for text in (key, f"{value:.4g}")
        ]
    assert list(table) == ["pipeline", "synthesis hifigan_istft"]
    # A product of matrices is about as fast as a machine can be: a wrong unit shows.
    assert 0.01 < table["synthesis hifigan_istft"]["share_of_sgemm"] < 10
    assert table["pipeline"]["examples_per_second"] > 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--seconds", "nan"], "error: --seconds: must be above 0, not nan"),
        (["--seconds", "inf"], "error: --seconds: must be above 0, not inf"),
        (["--out", "."], "error: --out: . is a folder; give a file"),
        (["--out", "file/b.json"], "error: file: File exists"),
        (["--out", "~nobody-here/b"], "error: ~nobody-here/b: there is no home folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    benchmark, arguments, line, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out) == (2, "") and printed.err.startswith(line)
