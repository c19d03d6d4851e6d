"""Overrides are written so that a shell and Hydra read them back; how to quote is told."""

import shlex
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from vocoder.composition import register_resolvers
from vocoder.errors import InputError
from vocoder.overrides import (
    check_plain,
    command,
    for_shell,
    hydra_errors_as_input_errors,
    values_of,
    written,
)
from vocoder.paths import asset

ODD = "=, '\"()[]{}$\\~-äß录:;&|*?#!%@`^<>.01eE+_/"


def read_back(argument: str):
    """What a shell and Hydra make of an argument that was printed."""
    (word,) = shlex.split(argument)
    override = OverridesParser.create().parse_override(word)
    # And OmegaConf of that, which has escapes of its own.
    return OmegaConf.to_container(OmegaConf.create({"x": override.value()}), resolve=True)["x"]


@settings(max_examples=300, deadline=None)
@given(st.text(ODD, max_size=12) | st.text(st.characters(codec="utf-8", exclude_categories="C")))
@example("\\\\${oc.env:HOME}\\")
@example("null")
@example("1_0")
@example("a,b")
@example("~/x")
@example("-x")
def test_any_text_is_read_back(text):
    if text.isprintable():
        assert read_back(for_shell(written("trainer.resume", text))) == text


def test_what_is_plain_stays_plain():
    assert command(trainer__resume=Path("/runs/a-1")) == (
        "python -m vocoder.train trainer.resume=/runs/a-1"
    )
    assert command(trainer__resume="/runs/a b") == (
        "python -m vocoder.train 'trainer.resume=/runs/a b'"
    )


def test_lists_and_mappings_are_read_back():
    value = {"a": [1, 2.5, True, None, "x, y"], "b": {"c": "${d}"}}
    assert read_back(for_shell(written("+x", value))) == value


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\u2028", "it's\t\\", "\udce9"])
def test_what_is_not_printable_is_for_bash(name, tmp_path):
    argument = for_shell(name)
    assert argument.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {argument}"], capture_output=True, check=True)
    assert done.stdout == name.encode("utf-8", "surrogateescape")


UNREADABLE = {
    "data.root=~/x": "'data.root=\"~/x\"'",
    "data.root=/Räuber": "'data.root=\"/Räuber\"'",
    "data.root=/a,b": "'data.root=\"/a,b\"'",
    "data.root=a=b": "'data.root=\"a=b\"'",
    "data.root=/a (1)": "'data.root=\"/a (1)\"'",
    "data.root=it's": "'data.root=\"it'\"'\"'s\"'",
    "data.root='a": "data.root=a",
    "data.root=${x": "'data.root=\"\\${x\"'",
    "data.include=[a(,b]": '["a=b","c"]',
    "a b c": "an override is KEY=VALUE",
    "--foo": "an override is KEY=VALUE",
}


@pytest.mark.parametrize("override", UNREADABLE)
def test_how_to_quote_is_told(override):
    register_resolvers()
    with (
        initialize_config_dir(str(asset("configs")), version_base="1.3"),
        pytest.raises(InputError) as error,
        hydra_errors_as_input_errors(),
    ):
        compose("train", [override])
    (line,) = str(error.value).splitlines()
    assert line.startswith(override) and UNREADABLE[override] in line


@pytest.mark.parametrize("text", ["data.root='$'", "data.root='a$b'", "~loss.terms.stft"])
def test_a_dollar_alone_is_plain(text):
    check_plain(text)


def test_values_of_overrides():
    given = [
        "optimizer.learning_rate=2e-4", "generator=vocos", "~loss.terms.stft",
        "+loss.terms.a={b: 1}",
        "trainer.validation_metrics=[stoi,mcd]", "trainer.jit_compile=true", "data.cache=null",
    ]  # fmt: skip
    assert values_of(given) == {
        "optimizer.learning_rate": 2e-4, "generator": "vocos", "loss.terms.a": "{b:1}",
        "trainer.validation_metrics": "[stoi,mcd]", "trainer.jit_compile": True,
    }  # fmt: skip
