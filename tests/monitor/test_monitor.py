"""What a user sees of a training run: log.jsonl, TensorBoard's curves, the console."""

import html
import io
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from tensorboard.plugin_util import markdown_to_safe_html

from megatron_iberis.config import load_recipe
from megatron_iberis.monitor.events import Figures, Samples, Validation
from megatron_iberis.monitor.metrics import LossAverage, Tracker, model_flops_utilization
from megatron_iberis.monitor.monitor import Monitor
from megatron_iberis.monitor.tensorboard import as_markdown
from tests.support.monitored import PEAK, RATES, RECIPE, SAMPLES, STEPS, curves, log_of, metrics, points, run

# log.jsonl


def test_each_event_is_a_line_of_json_that_is_there_at_once(tmp_path):
    monitor = Monitor(tmp_path, RECIPE, 2, 0, PEAK)
    monitor.step(metrics(0))
    (step,) = log_of(tmp_path, "step")
    assert (step["step"], step["loss"], step["tokens"]) == (1, 10.0, 524288)
    assert step["tokens_per_second"] == pytest.approx(524288 / 3.0)
    assert step["learning_rates"] == RATES
    monitor.tell(Samples(1, SAMPLES))
    assert log_of(tmp_path, "samples")[0]["samples"][1] == asdict(SAMPLES[1])
    monitor.note("checkpoint")
    assert log_of(tmp_path, "note")[0]["text"] == "checkpoint"
    monitor.close()


def test_resumed_log_holds_each_step_once(tmp_path):
    run(tmp_path, 0, 7)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"event": "step", "step": 4, "lo')  # cut off by a crash
    run(tmp_path, 4, STEPS)
    assert [line["step"] for line in log_of(tmp_path, "step")] == list(range(1, STEPS + 1))
    assert [line["step"] for line in log_of(tmp_path, "validation")] == [4, 8]
    assert not list(tmp_path.glob("*.tmp"))


def test_the_log_holds_what_each_start_runs_on(tmp_path):
    run(tmp_path, 0, 5)
    run(tmp_path, 4, STEPS)
    first, second = log_of(tmp_path, "start")
    assert (first["step"], second["step"]) == (0, 4)
    assert first["opening"]["model"] == "542,035,200 parameters"
    machine = first["machine"]
    assert (machine["device"], machine["ranks"], machine["peak_flops"]) == ("a test GPU", 2, 1e15)
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 1e8
    assert {"processor", "python", "torch", "deepspeed", "megatron-core", "megatron_iberis"} <= machine.keys()
    assert "start" not in curves(tmp_path).Tags()["scalars"]


def test_a_machine_that_cannot_be_looked_at_costs_no_log(tmp_path, monkeypatch):
    def fail() -> dict[str, str]:
        raise OSError("no")

    monkeypatch.setattr("megatron_iberis.monitor.monitor.machine_facts", fail)
    run(tmp_path, 0, 2)
    assert log_of(tmp_path, "start")[0]["machine"] == {"device": "a test GPU", "peak_flops": 1e15, "ranks": 2}
    assert len(log_of(tmp_path, "step")) == 2


def test_new_run_starts_an_empty_log_and_new_curves(tmp_path):
    run(tmp_path, 0, 7)
    run(tmp_path, 0, 2)
    assert [line["step"] for line in log_of(tmp_path, "step")] == [1, 2]
    assert [step for step, _ in points(curves(tmp_path), "train/loss")] == [1, 2]


def test_smoothed_loss_is_resumed_too(tmp_path):
    run(tmp_path / "whole", 0, STEPS)
    run(tmp_path / "parts", 0, 5)
    run(tmp_path / "parts", 4, STEPS)
    whole, parts = ([line["loss_smooth"] for line in log_of(tmp_path / n, "step")] for n in ("whole", "parts"))
    assert whole == parts


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_nan_loss_is_logged_as_valid_json(tmp_path, loss):
    monitor = Monitor(tmp_path, RECIPE, 1, 0, PEAK)
    monitor.step(metrics(0, loss=loss))
    monitor.step(metrics(1, loss=2.0))
    monitor.close()

    def refuse(constant):
        raise ValueError(constant)

    first, second = ((tmp_path / "log.jsonl").read_text()).splitlines()
    fields = json.loads(first, parse_constant=refuse)
    assert fields["loss"] is None
    assert fields["not_finite"]["loss"] == str(loss)
    assert json.loads(second)["loss_smooth"] == pytest.approx(2.0)  # one such step doesn't spoil the average


def test_smoothed_loss_has_no_bias_towards_its_start():
    average = LossAverage()
    assert average.add(5.0) == pytest.approx(5.0)
    assert average.add(3.0) == pytest.approx((0.09 * 5.0 + 0.1 * 3.0) / 0.19)


# TensorBoard


def test_tensorboard_scalars_can_be_read_back(tmp_path):
    run(tmp_path, 0, STEPS)
    read = curves(tmp_path)
    assert points(read, "train/loss") == [(step + 1, 10.0 - step) for step in range(STEPS)]
    assert points(read, "validation/bits_per_byte") == [(4, 0.25), (8, 0.125)]
    assert points(read, "learning_rate/embedding")[0] == (1, pytest.approx(0.15))
    assert [step for step, _ in points(read, "speed/tokens_per_second")] == list(range(2, STEPS + 1))
    mfu = model_flops_utilization(RECIPE.model, 524288, 3.0, 2e15)
    assert points(read, "speed/mfu")[0] == (2, pytest.approx(mfu))
    for tag in ("train/loss_smooth", "train/gradient_norm", "train/momentum", "memory/gigabytes", "validation/loss"):
        assert points(read, tag)


def test_resumed_run_shows_one_curve(tmp_path):
    run(tmp_path, 0, 7)
    run(tmp_path, 4, STEPS)
    read = curves(tmp_path)
    assert [step for step, _ in points(read, "train/loss")] == list(range(1, STEPS + 1))
    assert points(read, "validation/bits_per_byte") == [(4, 0.25), (8, 0.125)]


def test_curves_of_a_killed_run_are_on_disk(tmp_path):
    monitor = Monitor(tmp_path, RECIPE, 1, 0, PEAK)
    for step in range(3):
        monitor.step(metrics(step))
    assert len(points(curves(tmp_path), "train/loss")) == 3
    monitor.close()


def test_recipe_and_samples_are_text_in_tensorboard(tmp_path):
    run(tmp_path, 0, 4)
    read = curves(tmp_path)

    def text(tag):
        return read.Tensors(tag)[-1].tensor_proto.string_val[0].decode()

    assert text("recipe").startswith("```toml\n[model]\ndepth = 20\n")
    shown = html.unescape(markdown_to_safe_html(text("samples")))
    assert "<strong>The capital of France is</strong> *Paris*.<br>" in shown
    assert "<strong>日本の首都は</strong>東京です。" in shown


@pytest.mark.parametrize(
    "text", ["# a\n- b\n```\nc", "*a* _b_ `c` [d](e)", "<script>x</script> &amp;", "1. a\n\n    b", "a|b\n-|-"]
)
def test_markdown_in_a_sample_does_no_harm(text):
    shown = markdown_to_safe_html(as_markdown(text))
    for tag in ("<h1>", "<li>", "<code>", "<em>", "<a ", "<script", "<table", "<pre>"):
        assert tag not in shown
    assert shown.count("<p>") == 1


def test_hyper_parameters_stand_beside_the_results(tmp_path):
    from tensorboard.plugins.hparams.metadata import (
        parse_experiment_plugin_data,
        parse_session_start_info_plugin_data,
    )

    run(tmp_path, 0, STEPS)
    metadata = curves(tmp_path).summary_metadata

    def content(tag):
        return metadata[tag].plugin_data.content

    metrics = parse_experiment_plugin_data(content("_hparams_/experiment")).metric_infos
    assert {metric.name.tag for metric in metrics} == {"validation/bits_per_byte", "validation/loss"}
    values = parse_session_start_info_plugin_data(content("_hparams_/session_start_info")).hparams
    assert values["model.parameters"].number_value == 542035200
    assert values["train.dtype"].string_value == "bf16"
    assert "_hparams_/session_end_info" in metadata


# Rates


def test_mfu_counts_attention_only_where_it_is():
    hybrid = RECIPE.model
    everywhere = replace(hybrid, slc_rate=1)
    for model in (hybrid, everywhere):
        attention = 12.0 * model.width * model.sequence_length * len(model.attention_layers)
        matrices = 6.0 * (model.parameter_count() - model.vocab_size * model.width)
        mfu = model_flops_utilization(model, tokens=1000, seconds=2.0, flops=1e15)
        assert mfu == pytest.approx((matrices + attention) * 1000 / 2.0 / 1e15)
    assert len(hybrid.attention_layers) < len(everywhere.attention_layers) == hybrid.depth


def test_mfu_is_counted_over_all_ranks():
    one, four = (Tracker(RECIPE, world, PEAK).add(metrics(0), 0).mfu for world in (1, 4))
    assert one == pytest.approx(4 * four)


def test_eta_leaves_out_the_first_step():
    recipe = load_recipe("d20", ["--train.steps", "100", "--evaluation.every", "0"])
    tracker = Tracker(recipe, 1, PEAK)
    first = tracker.add(metrics(0, seconds=500.0), 0)
    assert first.seconds_left is None
    assert first.recent_tokens_per_second is None
    second = tracker.add(metrics(1, seconds=2.0), 0)
    assert second.seconds_left == pytest.approx(98 * 2.0)
    assert second.recent_tokens_per_second == pytest.approx(524288 / 2.0)


def test_eta_counts_the_validations_to_come():
    recipe = load_recipe("d20", ["--train.steps", "100", "--evaluation.every", "40"])
    tracker = Tracker(recipe, 1, PEAK)
    tracker.validated(10.0)
    tracker.add(metrics(40), 0)
    assert tracker.add(metrics(41, seconds=1.0), 0).seconds_left == pytest.approx(58 + 2 * 10.0)  # after 80 and 100


# Figures that nobody here knows

CORE = {"arc_easy": 0.2513, "hellaswag": 0.3071, "lambada": 0.0, "squad": -1.25, "tokens": 1234567.0, "ece": math.nan}


def test_figures_of_any_group_reach_console_log_and_tensorboard(tmp_path, capsys):
    monitor = Monitor(tmp_path, RECIPE, 1, 0, PEAK)
    monitor.tell(Figures(3, "core", CORE))
    monitor.close()
    assert capsys.readouterr().out.splitlines() == [
        "core after step 3:  arc_easy 0.2513  hellaswag 0.3071  lambada 0  squad -1.250  tokens 1,234,567  ece nan"
    ]
    (line,) = log_of(tmp_path, "figures")
    assert (line["step"], line["group"], line["values"]) == (3, "core", {**CORE, "ece": None})
    assert line["not_finite"] == {"values.ece": "nan"}
    for name in ("arc_easy", "squad", "tokens"):
        assert points(curves(tmp_path), f"core/{name}") == [(3, pytest.approx(CORE[name]))]


def test_figures_of_a_step_are_shown_with_its_line_alone(tmp_path, capsys):
    recipe = load_recipe("d20", ["--train.steps", str(STEPS), "--train.log_every", "3"])
    monitor = Monitor(tmp_path, recipe, 1, 0, PEAK)
    for step in range(STEPS):
        monitor.step(metrics(step))
        monitor.tell(Figures(step + 1, "train", {"margin": step / 10}))
    monitor.close()
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train ")]
    assert shown == [f"train after step {n}:  margin {(n - 1) / 10:.4f}" for n in (3, 6, 8)]
    assert len(log_of(tmp_path, "figures")) == STEPS


# Nothing here ends a run


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_does_not_end_the_run(tmp_path, capfd):
    monitor = Monitor(tmp_path, RECIPE, 1, 0, PEAK)
    log, curves = monitor._recorders["log.jsonl"], monitor._recorders["TensorBoard"]
    for file in (log._file, curves._file):
        os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
    for step in range(STEPS):
        monitor.step(metrics(step))
    monitor.tell(Validation(STEPS, 1.0, 2.0, 1.0))
    monitor.note("the end")
    monitor.close()
    captured = capfd.readouterr()
    for name in ("log.jsonl", "TensorBoard"):
        assert captured.out.count(f"warning: {name} can't be written any more") == 1
    assert "No space left on device" in captured.out
    assert captured.out.count("step ") >= STEPS
    assert "the end" in captured.out
    assert captured.err == ""


def test_folder_that_cannot_be_written_does_not_end_the_run(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    run(tmp_path / "file", 0, STEPS)
    assert capsys.readouterr().out.count("warning: ") == 2


def test_output_that_is_gone_does_not_end_the_run(tmp_path, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Gone())
    run(tmp_path, 0, STEPS)
    assert len(log_of(tmp_path, "step")) == STEPS


def test_tensorboard_is_imported_only_when_a_monitor_is_made():
    code = "import sys, megatron_iberis.monitor.monitor; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "megatron_iberis.monitor.monitor" in modules
    assert not any(module.startswith("tensorboard") for module in modules)
