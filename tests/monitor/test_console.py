"""The console of a run: what its lines say, how wide they are, and that nothing foreign reaches the terminal."""

import io
import math
from itertools import pairwise

import pytest

from megatron_iberis.config import load_recipe
from megatron_iberis.monitor.console import Console, duration, figures_lines, number, significant, step_line
from megatron_iberis.monitor.events import Samples, SampleText
from megatron_iberis.monitor.metrics import Tracker
from tests.support.monitored import PEAK, SAMPLES, STEPS, log_of, metrics, run


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (4.21, "4.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (130, "2 min 10 s"),
        (11100, "3 h 05 min"),
        (183600, "2 d 03 h"),
    ],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.02, "0.020"), (1.0, "1.0"), (12.3, "12"), (1234.0, "1234"), (2e-5, "2.0e-05"), (math.nan, "nan")],
)
def test_figures_are_short(value, text):
    assert significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (3.0, "3"), (1234, "1,234"), (0.25, "0.2500"), (math.inf, "inf")]
)
def test_figures_of_any_kind_of_number_are_told(value, text):
    assert number(value) == text


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_plain_console_has_no_escape_codes(tmp_path, capsys):
    run(tmp_path, 0, STEPS)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    lines = out.splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert len(steps) == STEPS
    assert all(line.isascii() and len(line) <= 120 for line in steps)
    assert "first step took 3.0 s" in steps[0]
    for figure in (
        "step 7/8  87.5 %",
        "loss ",
        "grad 0.50",
        "lr 0.020",
        "174,763 tok/s",
        "MFU ",
        " GB",
        "ETA 4.5 s",
    ):
        assert figure in steps[6]
    assert "ETA" not in steps[7]
    assert "validation after step 8:  0.1250 bits per byte (-0.1250)   loss 2.0000   1.5 s" in lines
    assert r"sample after step 8:  [日本の首都は]東京です。\x1b[31m" in lines
    assert r"sample after step 8:  [The capital of France is] *Paris*.\n# 1" in lines
    assert any(line.split() == ["peak", "1000", "TFLOP/s", "x", "2", "ranks", "(a", "test", "GPU)"] for line in lines)


def test_step_lines_come_every_log_every_steps_and_at_the_end(tmp_path, capsys):
    run(tmp_path, 0, STEPS, load_recipe("d20", ["--train.steps", str(STEPS), "--train.log_every", "3"]))
    shown = [line.split("/")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert shown == ["step 3", "step 6", "step 8"]
    assert len(log_of(tmp_path, "step")) == STEPS


@pytest.mark.parametrize("width", [80, 100, 120])
def test_step_line_fits_the_terminal(width):
    recipe = load_recipe("d12")
    tracker = Tracker(recipe, 8, PEAK)
    for step in (19999, 20000):
        report = tracker.add(metrics(step, loss=2.5, seconds=0.35), 123_400_000_000)
    line = step_line(report, recipe.train.steps, width).plain
    assert len(line) <= width
    assert "tok/s" in line
    assert line.endswith("ETA 29 min 50 s")
    assert ("GB" in line) == (width == 120)


def test_terminal_shows_no_control_characters_of_the_model(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    console = Console(STEPS, 1, terminal)
    console.tell(Samples(4, (SampleText("[bold]a[/bold]", "\x1b[31m\u202e\x07 b"),)))
    out = terminal.getvalue()
    assert "\x1b[1m" in out  # ours
    assert "\x1b[31m" not in out
    assert r"\x1b[31m\u202e\x07 b" in out
    assert "[bold]a[/bold]" in out


def test_console_that_cannot_show_japanese_shows_escapes():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(STEPS, 1, stream).tell(Samples(4, SAMPLES))
    stream.seek(0)
    assert "[\\u65e5\\u672c" in stream.read()


@pytest.mark.parametrize("width", [40, 80])
def test_many_figures_are_lines_of_whole_pairs(width):
    values = {f"task_{number}": number / 100 for number in range(22)}
    lines = [line.plain for line in figures_lines([("core after step 1,000:", "")], values, width)]
    assert max(map(len, lines)) <= width
    for line, following in pairwise(lines):
        assert len(line) + len("  " + " ".join(following.split()[:2])) > width  # it would not have fitted
    assert all(line.startswith("    task_") for line in lines[1:])
    words = " ".join(lines).split()[4:]
    assert dict(zip(words[::2], map(float, words[1::2]), strict=True)) == values
