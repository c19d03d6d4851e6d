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


@pytest.mark.slow
def test_prints_a_table_and_writes_json(benchmark, tmp_path, monkeypatch, capsys):
    out = tmp_path / "b.json"
    arguments = ["benchmark.py", "--rows", "pipeline", "--seconds", "0.2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    benchmark.main()
    rows = json.loads(out.read_text())["rows"]
    assert rows["pipeline"]["examples_per_second"] > 0
    assert "examples_per_second" in capsys.readouterr().out
    row = benchmark.step_row("hifigan_istft", 0.1)
    assert row["multi_loss_over_summed_by_hand"] > 0
    row = benchmark.synthesis_row("hifigan_istft", 0.1)
    expected = row["times_real_time"] * row["gflop_per_second_of_audio"]
    assert row["share_of_sgemm"] * row["sgemm_gflop_per_second"] == pytest.approx(expected)
