"""The report of runs: its text, tables, pictures and page; and that nothing stands there that was not run."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image

from megatron_iberis.cli import main
from megatron_iberis.monitor.events import SampleText
from megatron_iberis.report import drawing
from megatron_iberis.report.document import Report, compose
from megatron_iberis.report.html import page
from megatron_iberis.report.records import read_runs
from tests.support.reported import STEPS, measure, recipe_of, write_evaluation, write_run

HOSTILE = (
    "</code></pre><script>alert(1)</script>",
    "```\n# A heading of mine\n```",
    "~~~\n| a | b |\n![x](http://example.com/x.png)",
    "````` and `code`\n---\nlicense: evil\n---",
    "\x1b[31m\u202e\x00 <img src=x onerror=alert(1)> [link](javascript:alert(1))",
)


def report_of(*folders: Path, timings: dict[str, float] | None = None, price: float | None = None) -> Report:
    return compose(read_runs(folders), "A test", timings or {}, price)


@pytest.fixture(scope="module")
def whole(runs: dict[str, Path]) -> Report:
    return report_of(runs["rl"], timings={"base": 100.0, "eval base": 50.0}, price=36.0)


def section(text: str, title: str) -> str:
    """What stands between a heading and the next of its level or above."""
    level = title.split(" ")[0]
    found = re.search(rf"^{re.escape(title)}$\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def cells(text: str, first: str) -> list[str]:
    """The cells of the table's row that begins with `first`."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_report_is_a_model_card_whose_scores_are_the_last_measured_stage_s(whole: Report) -> None:
    data = ModelCard(whole.text).data
    assert (data.language, data.license, data.pipeline_tag) == (["en", "ja"], "mit", "text-generation")
    assert data.model_name == "A test"
    scores = {(each.dataset_type, each.metric_type): each.metric_value for each in data.eval_results}
    assert scores["mmlu", "accuracy"] == 0.26
    assert scores["humaneval", "pass@1"] == 0.02
    assert scores["ChatCORE", "centred_accuracy"] == pytest.approx(1.19 / 6, abs=1e-5)
    assert ("copa", "accuracy") not in scores  # the base model's


def test_each_score_stands_with_error_chance_and_number_and_a_mark_at_chance(whole: Report) -> None:
    tasks = section(whole.text, "### English, in conversation")
    published = ["37.92 mid, 38.64 SFT", "25.63 mid, 26.73 SFT"]
    assert cells(tasks, "arc-easy") == ["arc-easy", "40.00 ± 1.55", "25.0", "1,000", *published]
    assert cells(tasks, "mmlu")[1] == "26.00 ± 1.39 ~"
    assert cells(section(whole.text, "### Japanese, in conversation"), "jcommonsenseqa")[1] == "21.00 ± 2.04 ~"
    assert cells(section(whole.text, "### Japanese, as text that goes on"), "jcommonsenseqa")[1] == "35.00 ± 2.38"


def test_the_means_of_tasks_stand_beside_the_published_ones(whole: Report) -> None:
    scores = section(whole.text, "## Scores")
    head = cells(scores, "mean of tasks")
    assert head[1:] == ["base", "SFT", "published d20 (EN)", "published d12 (JA-EN)"]
    assert cells(scores, "CORE v1, 1 of 22 tasks")[1:] == ["20.00 ± 9.80", "", "17.96 base", "15.01 base"]
    assert cells(scores, "ChatCORE")[2].startswith("19.83")
    assert cells(scores, "ChatCORE without SpellingBee")[2].startswith("5.80")
    assert cells(scores, "ChatCORE")[3:] == ["23.48 mid, 23.22 SFT", "17.85 mid, 18.75 SFT"]
    assert "The JA mean of base is that of jcommonsenseqa, xwinograd-ja and jsquad; left out," in scores


def test_how_it_was_measured_is_said(whole: Report) -> None:
    said = section(whole.text, "## Scores")
    assert f"base after {STEPS} steps, SFT after {STEPS} steps" in said
    assert "at most (`--limit`): base 400." in said
    assert "at level `full` (humaneval of SFT)" in said
    assert cells(said, "held-out text, en")[1] == "1.2500 ± 0.0100"


def test_the_first_words_say_what_it_can_do_by_its_scores(whole: Report) -> None:
    first = section(whole.text, "# A test")
    assert "5.15 million parameters in 4 layers" in first
    assert "pretraining on 65,536 tokens of English text" in first
    better = "spelling-bee 90.0 (chance 0.0), arc-easy 40.0 (chance 25.0) and gsm8k 3.0 (chance 0.0)"
    assert f"on 3 it is clearly better than guessing, {better};" in first
    assert "on 4 it cannot be told from guessing: arc-challenge, mmlu, humaneval and jcommonsenseqa." in first


def test_the_data_s_rows_are_accounted_for(whole: Report) -> None:
    data = section(whole.text, "## Data")
    assert cells(data, "`en_text_document`") == [
        "`en_text_document`",
        "",
        "100",
        "65,536",
        "250,000",
        "110",
        "3 empty, 5 duplicates, 2 no text",
    ]
    assert "| books.jsonl.zst | 100 | 65,536 |" in data
    assert "which is 1.00 times all of these" in data
    assert cells(data, "chats.jsonl") == ["chats.jsonl", "30", "2", "1", "0", "5,000", "2,000"]
    assert cells(data, "pairs.jsonl")[1:] == ["12", "1", "2", "3", "9", "900", "400"]
    assert "was not counted" in data


def test_overlap_with_evaluation_sets_is_shown_where_it_was_counted(tmp_path: Path) -> None:
    run = write_run(recipe_of("sft", tmp_path / "sft"), [])
    told = {
        "sets": [{"name": "gsm8k", "items": 1319, "too_short": 7, "found": 3}],
        "sources": [{"name": "/home/me/x/chats.jsonl", "rows": 9000, "with_items": 4, "near_only": 1}],
        "both": [{"source": "/home/me/x/chats.jsonl", "set": "gsm8k", "rows": 4, "items": 3}],
    }
    (run / "overlap.json").write_text(json.dumps(told))
    data = section(report_of(run).text, "## Data")
    assert "| x/chats.jsonl | 9,000 | 4 | 1 |" in data
    assert "| gsm8k | 1,319 | 7 | 3 |" in data
    assert "x/chats.jsonl holds 3 items of gsm8k in 4 rows." in data
    assert "was not counted" not in data


def test_time_and_cost_are_told_by_stage_and_by_step(whole: Report, runs: dict[str, Path]) -> None:
    said = section(whole.text, "## Time and machine")
    stage = cells(said, "base: pretraining")
    assert (stage[1], stage[2], stage[3], stage[-1]) == (str(STEPS), "65,536", "8.0 s", "$0.08")
    assert cells(said, "eval base") == ["eval base", "50 s", "$0.50"]
    assert cells(said, "all")[3] == "32 s"
    assert "a test GPU" in said
    assert "cost" not in section(report_of(runs["base"]).text, "## Time and machine")


def test_a_log_without_the_machine_says_so(tmp_path: Path) -> None:
    run = write_run(recipe_of("base", tmp_path / "base"), [])
    lines = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("".join(f"{line}\n" for line in lines if '"event": "start"' not in line))
    assert "| base | not recorded |" in report_of(run).text


def test_the_health_of_dpo_and_rl_is_told(whole: Report) -> None:
    dpo = section(whole.text, "## DPO: is it healthy")
    assert cells(dpo, "margin") == ["margin", "0.0200", "0.5000"]
    assert "have become less likely than they were" in dpo
    rl = section(whole.text, "## RL: is it healthy")
    assert cells(rl, "reward") == ["reward", "10.00", "40.00"]
    assert cells(rl, "pass@2")[1:] == ["15.00", "15.00"]
    assert "changed by +30.00 points, which is more than two of its standard errors (2.83)" in rl
    assert "On average 25 % of the groups" in rl
    assert "48 of 64 groups were trained on" in rl


def test_only_what_was_run_is_there(runs: dict[str, Path], tmp_path: Path) -> None:
    run = write_run(recipe_of("base", tmp_path / "base"), [])
    made = report_of(run)
    assert "None of the runs has been evaluated" in made.text
    assert "so nothing can be said about what it can do" in made.text
    assert not any(f"\n## {title}" in made.text for title in ("DPO", "RL", "What it writes"))
    assert ModelCard(made.text).data.eval_results is None
    assert set(made.pictures) == {"curves_tokens.png", "curves_hours.png", "training.png"}


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    made = report_of(write_run(recipe_of("base", tmp_path / "base"), [], steps=0))
    assert f"0 of {STEPS} steps are done" in made.text
    assert made.pictures == {}


def test_a_run_that_is_not_finished_and_skipped_steps_are_said(tmp_path: Path) -> None:
    run = write_run(recipe_of("base", tmp_path / "base"), [], steps=5)
    text = report_of(run).text
    assert f"The stage base is not finished: 5 of {STEPS:,} steps are done." in text
    assert "Steps that were skipped, since loss or gradient were no finite number: 1 of base." in text


def test_what_differs_from_the_published_run_is_told_setting_by_setting(whole: Report) -> None:
    said = section(whole.text, "## What differs from the published run")
    assert "| layers | 16 | 4 |" in said
    assert "| steps | 25,116 | 8 |" in said
    assert "| taps of the convolution |" not in said  # the same
    assert said.count("| layers |") == 1
    assert "**DPO**: there is no published run of this stage." in said


def test_the_published_recipe_itself_differs_in_nothing(tmp_path: Path) -> None:
    from megatron_iberis.config import load_recipe

    run = write_run(load_recipe("d20", [f"--run.folder={tmp_path}/d20"]), [], steps=1)
    text = section(report_of(run).text, "## What differs from the published run")
    assert "**base**: every setting that matters is the published one." in text


def test_the_published_figures_are_corrected_politely(whole: Report) -> None:
    said = section(whole.text, "## About the published figures")
    assert cells(said, "humaneval")[1:] == ["7.32 mid, 5.49 SFT", "3.05 mid, 1.22 SFT"]
    for fact in ("keeps no state of the convolutions", "1 4 7 10 13 15", "a mean of six tasks", "cannot be compared"):
        assert fact in " ".join(said.split())


def test_samples_stand_by_language_with_their_stage(whole: Report) -> None:
    english, japanese = (section(whole.text, f"### {language}") for language in ("English", "Japanese"))
    assert f"base (step {STEPS}):\n\n```text\n is blue.\n```" in english
    assert "SFT (step 8):\n\n```text\nHello.\n```" in english
    assert "東京です。" in japanese


def test_text_of_a_model_or_a_user_breaks_out_of_neither_markdown_nor_the_page(tmp_path: Path) -> None:
    samples = [SampleText(prompt, prompt) for prompt in HOSTILE]
    run = write_run(recipe_of("base", tmp_path / "<b>x|y</b>"), [], samples)
    write_evaluation(run, "chat", [measure("a|b <script>", 0.5), measure("![](x) `", 0.5)])
    made = compose(read_runs([run]), 'x "> <script>*a*', {"<i>|": 1.0}, None)
    tokens = MarkdownIt("commonmark").enable("table").parse(made.text.split("\n---\n", 1)[1])
    fences = [token.content for token in tokens if token.type == "fence" and token.info == "text"]
    assert len(fences) == 2 * len(HOSTILE)
    assert fences[0] == HOSTILE[0] + "\n"
    assert fences[2] == HOSTILE[1] + "\n"
    assert not any(token.type == "html_block" for token in tokens)
    inner = [child for token in tokens for child in token.children or () if token.type == "inline"]
    assert not any(child.type == "html_inline" for child in inner)
    assert {child.attrs["src"] for child in inner if child.type == "image"} == set(made.pictures)
    html = page(made.text, made.pictures, 'x "> <script>*a*')
    assert not re.search(r"<(script|img src=x|b|i)\b", html)
    assert "A heading of mine</h" not in html
    assert "\x1b" not in html + made.text
    assert "\u202e" not in html + made.text
    assert "javascript:" not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)


def test_the_page_needs_nothing_beside_itself(whole: Report) -> None:
    html = page(whole.text, whole.pictures, "A test")
    assert html.count("data:image/png;base64,") == len(whole.pictures)
    assert not re.search(r'(src|href)="(?!data:|https://github\.com/Rikka-Botan/)', html)
    assert "<script" not in html
    assert "license: mit" not in html
    assert html.count('<div class="wide"><table>') == html.count("<table>")


def test_paths_of_the_machine_are_not_told(whole: Report, runs: dict[str, Path]) -> None:
    assert str(runs["base"].parent) not in whole.text
    assert "/home/me" not in whole.text
    assert 'start_from = "base/checkpoints/step-00000008"' in whole.text


def test_pictures_are_small_and_the_same_each_time(whole: Report, runs: dict[str, Path]) -> None:
    assert {"dpo.png", "rl.png", "scores_chat_en.png", "scores_base_ja.png"} <= set(whole.pictures)
    for name, png in whole.pictures.items():
        assert f"]({name})" in whole.text
        image = Image.open(io.BytesIO(png))
        assert image.width == drawing.WIDTH * drawing.DPI
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 5  # something is drawn
        assert len(png) < 120_000
    assert report_of(runs["rl"]).pictures == whole.pictures


def test_the_packaged_font_has_japanese_letters() -> None:
    if not find_spec("matplotlib_fontja"):
        pytest.skip("the font's package is not installed")
    assert drawing.japanese_font() == "IPAexGothic"
    assert not any(
        name.startswith("matplotlib_fontja") for name in sys.modules
    )  # its import would change everybody's fonts


def test_the_command_writes_the_report_and_its_page(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timings = tmp_path / "timings.json"
    timings.write_text('{"steps": {"base": {"seconds": 12.5}, "tokenizer": {}}}')
    words = ["--run", str(runs["sft"]), "--output", str(tmp_path / "out"), "--timings", str(timings), "--html"]
    assert main(["report", *words, "--price", "24", "--name", "Mine"]) == 0
    assert "base, mid, SFT" in capsys.readouterr().out
    text = (tmp_path / "out/report.md").read_text()
    assert "# Mine\n" in text
    assert "| base | 12 s | $0.08 |" in text
    names = set(re.findall(r"\]\((\w+\.png)\)", text))
    assert names == {path.name for path in (tmp_path / "out").glob("*.png")}
    assert "<h1>Mine</h1>" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "nothing"], "there is no run in nothing"),
        (["--price", "0"], "--price 0 is no price"),
        (["--price", "nan"], "--price nan is no price"),
        (["--timings", "timings.json"], "holds no timings"),
        (["--output", "taken"], "is a file"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str],
    said: str,
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    (tmp_path / "timings.json").write_text('{"steps": {"base": {"seconds": "long"}}}')
    assert main(["report", "--run", str(runs["base"]), "--output", "out", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def run_without(modules: str, runs: dict[str, Path], output: Path) -> subprocess.CompletedProcess[str]:
    """The command in a fresh process that has none of these modules; it says which of torch's are loaded."""
    code = (
        f"import sys, importlib.abc\n"
        f"class Missing(importlib.abc.MetaPathFinder):\n"
        f"    def find_spec(self, name, path, target=None):\n"
        f"        if name.partition('.')[0] in {modules.split()}: raise ModuleNotFoundError(name=name)\n"
        f"sys.meta_path.insert(0, Missing())\n"
        f"import importlib.util; found = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *a: None if name in {modules.split()} else found(name, *a)\n"
        f"from megatron_iberis.cli import main\n"
        f"sys.exit(main(['report', '--run', {str(runs['sft'])!r}, '--output', {str(output)!r}]))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_it_works_without_torch(runs: dict[str, Path], tmp_path: Path) -> None:
    done = run_without("torch deepspeed megatron transformers", runs, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out/scores_chat_en.png").is_file()


def test_without_matplotlib_there_is_a_report_without_pictures(runs: dict[str, Path], tmp_path: Path) -> None:
    done = run_without("matplotlib PIL", runs, tmp_path / "out")
    assert done.returncode == 0
    assert "matplotlib is missing (pip install 'megatron_iberis[report]')" in done.stderr
    assert "![" not in (tmp_path / "out/report.md").read_text()
    assert "English, in conversation" in (tmp_path / "out/report.md").read_text()
