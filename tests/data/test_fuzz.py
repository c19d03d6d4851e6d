"""Headers with random faults and files cut anywhere: always audio or a reason."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vocoder.data.probe import CRASHED, Probes

FORMATS = ("WAV", "FLAC", "OGG")


@pytest.fixture(scope="module")
def probes():
    with Probes(1) as probes:
        yield probes


def encoded(kind):
    samples = 0.3 * np.sin(np.arange(6000) * 0.05)
    with io.BytesIO() as buffer:
        soundfile.write(buffer, samples, 22050, format=kind)
        return buffer.getvalue()


ORIGINALS = {kind: encoded(kind) for kind in FORMATS}


def look(probes, path, content):
    path.write_bytes(content)
    for whole in (False, True):
        [found] = probes.look([str(path)], whole=whole)
        if "error" in found:
            assert str(path) in found["error"] and CRASHED not in found["error"]
            assert "Error:" not in found["error"], found  # an exception that no one foresaw
        else:
            assert found["frames"] > 0 and found["channels"] > 0 and found["sample_rate"] > 0
            assert not whole or 0 <= found["peak"] <= 1000
    return found


@pytest.mark.parametrize("kind", FORMATS)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_audio_or_a_reason(kind, probes, tmp_path, data):
    content = bytearray(ORIGINALS[kind])
    faults = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=6)
    for place, value in data.draw(faults):
        content[place] = value
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    look(probes, tmp_path / f"a.{kind.lower()}", bytes(content[:end]))


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_at_every_place_of_the_header(kind, probes, tmp_path):
    for end in range(0, 128, 3):
        look(probes, tmp_path / f"a.{kind.lower()}", ORIGINALS[kind][:end])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_originals_are_audio(kind, probes, tmp_path):
    assert look(probes, tmp_path / f"a.{kind.lower()}", ORIGINALS[kind])["frames"] == 6000
