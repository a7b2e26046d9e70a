"""The page: every number from a file, nothing loaded from anywhere, hostile names shown as text."""

import base64
import csv
import hashlib
import html
import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_place import HOSTILE, NAMES, Place, add_ensemble, add_run, begin_run, make_place

from conftest import ROOT, refused
from onepass.cache.arrays import pack_arrays
from onepass.cache.commandline.command import main
from onepass.cache.errors import CorruptFileError, MissingFileError, StaleError, UsageError
from onepass.cache.files import write_atomic
from onepass.classify.analysis.inspection import inspect_dataset
from onepass.classify.analysis.transferability import Transferability, score_features
from onepass.classify.config import InspectConfig, SweepConfig, TransferConfig
from onepass.classify.goals import parse_goal
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.prediction_record import MemberRecord
from onepass.classify.operating_points import (
    OperatingPoint,
    choose_for_winner,
    positive_column,
)
from onepass.classify.search.sweep import run_sweeps
from onepass.finetune.ablation import ABLATION, Ablation, AblationLine
from onepass.finetune.recipes import DE2020_AUGMENTATION
from onepass.finetune.session.history import EpochRow, SelectionScore
from onepass.finetune.session.runs import logits_path
from onepass.report import context
from onepass.report.__main__ import COMMANDS
from onepass.report.config import ReportConfig
from onepass.report.context import open_context
from onepass.report.feature_files import feature_files
from onepass.report.page import PageResult, write_page


class Parsed(HTMLParser):
    """Collects what a page would fetch, run or show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Ten classes, four feature files, eight probes."""
    return make_place(tmp_path_factory.mktemp("report"))


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """The same, to be changed: results of its own."""
    return copy_of(made, tmp_path)


def copy_of(made: Place, folder: Path) -> Place:
    return Place(made.store, Path(shutil.copytree(made.runs, folder / "runs")), made.name)


def words_for(place: Place) -> list[str]:
    return ["--dataset", place.name, "--cache-dir", str(place.store), "--runs-dir", str(place.runs)]


@pytest.fixture(scope="module")
def written(made: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command says as JSON of the page after classify alone."""
    words = words_for(copy_of(made, tmp_path_factory.mktemp("written")))
    with redirect_stdout(io.StringIO()) as out:
        assert main("report", COMMANDS, [*words, "--json"]) == 0
    return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def hostile(made: Place, tmp_path_factory: pytest.TempPathFactory) -> PageResult:
    """The page with a run whose name is hostile too."""
    place = copy_of(made, tmp_path_factory.mktemp("hostile"))
    add_run(place, "run" + HOSTILE.replace("/", ""))
    return place.write()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two classes, with a fine-tuned run."""
    place = make_place(tmp_path_factory.mktemp("two"), classes=2, name="pair")
    add_run(place, "tuned", wrong=9)
    return place


def test_the_command_writes_one_file_and_says_where(place: Place) -> None:
    words = ["-m", "report", *words_for(place)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    page = place.folder / "report.html"
    assert f"Page: {page}" in done.stdout and done.stdout.startswith(f"{place.name}: 8 probes, 0 ")
    assert page.stat().st_size < 5_000_000 and not done.stderr


def test_the_command_lists_what_it_wrote(written: dict[str, Any]) -> None:
    assert Path(written["path"]).name == "report.html" and Path(written["path"]).exists()
    assert written["probes"] == 8 and written["notes"] == []
    for name in written["figure_names"]:
        assert (Path(written["figures"]) / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (Path(written["figures"]) / f"{name}.csv").stat().st_size > 0


def test_nothing_is_loaded_and_only_our_own_script_may_run(hostile: PageResult) -> None:
    text = hostile.path.read_text(encoding="utf-8")
    page = Parsed(text)
    addresses = [a[name] for _, a in page.tags for name in ("src", "href", "data", "action", "srcset") if name in a]  # fmt: skip
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in text.replace("url(#", "") and "@import" not in text  # # is in the page
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("style", "script"):
        (block,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not [a for _, a in page.tags for name in a if name.startswith("on") or name == "style"]


def test_hostile_names_are_text_wherever_they_stand(hostile: PageResult) -> None:
    text = hostile.path.read_text(encoding="utf-8")
    page = Parsed(text)
    assert len(page.all("script")) == 1 and not page.all("i")
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.all("img"))
    words = " ".join(page.texts)
    for name in [HOSTILE, NAMES[1], NAMES[2], "A note <script>alert(3)</script>", "Digits <b>bold</b>"]:  # fmt: skip
        assert name in words
    assert sum(HOSTILE in image["alt"] for image in page.all("img")) >= 5
    with (hostile.figures / "confusion.csv").open(newline="") as file:
        cells = {cell for row in csv.reader(file) for cell in row}
    assert "'=1+1" in cells and "=1+1" not in cells


def test_the_use_of_the_gpus_stands_beside_them_only_where_it_is_known(place: Place) -> None:
    add_run(place, "known", devices=["gpu:0"], gpu_use=0.968)
    add_run(place, "unknown", devices=["cpu:0"], gpu_use=None)
    cells = " ".join(Parsed(place.page()).texts)
    assert "gpu:0, GPU use 96.8 %" in cells and cells.count("GPU use") == 1


def test_the_page_holds_after_classify_alone(written: dict[str, Any]) -> None:
    assert written["runs"] == 0 and "finetuning" not in written["sections"]
    assert {"headline", "leaderboard", "tradeoffs", "calibration", "mistakes", "embedding", "time", "reproduce"} == set(written["sections"])  # fmt: skip
    assert {"comparison", "accuracy-size", "accuracy-cost", "search-logistic", "search-ridge", "reliability", "risk-coverage", "confusion", "mistakes", "embedding", "time"} == set(written["figure_names"])  # fmt: skip


def test_numbers_come_from_the_leaderboard(place: Place) -> None:
    before = place.page()
    winner = Leaderboard.load(place.folder, place.name, place.dataset.digest).winner
    assert f'<p class="huge">{100 * winner.val_top1:.1f} %</p>' in before
    assert "12.3 %" not in before and "11.1 … 13.9 %" not in before
    place.change_winner(
        val_interval=(0.111, 0.139), val_top1=0.123, selection_top1=0.998, seconds=7384.0
    )
    page = place.page()
    assert '<p class="huge">12.3 %</p>' in page and "11.1 … 13.9 %" in page
    assert "99.8 %" in page and "2 h 03 min" in page


def test_numbers_come_from_the_run(place: Place) -> None:
    add_run(place, "tuned", wrong=5)
    count = len(place.dataset.rows("val"))
    assert f"5 of {count} validation images" in place.page()
    history = (EpochRow(1, 0.5, 0.7777, 2.0),)
    place.change_result("tuned", val_top1=0.4321, p_value=0.2, history=history)
    page = place.page()
    assert "43.2 %" in page and "77.8 %" in page
    words = "points worse than its probe; too few images to call it significant (McNemar, p = 0.2)"
    assert words in page and "kept: the start" not in page
    place.change_result("tuned", kept_epochs=(0,), start_selection=SelectionScore(0.9, 0.3))
    page = place.page()
    assert "kept: the start" in page and "no epoch did better than the start; " in page
    add_run(place, "tuned", wrong=8)
    assert f"8 of {count} validation images" in place.page()


def test_the_page_is_headed_by_the_model_to_use(place: Place) -> None:
    add_run(place, "tuned", wrong=5, kept_epochs=(3,))
    head = place.page().split('id="leaderboard"')[0]
    accuracy = f"{100 * (1 - 5 / len(place.dataset.rows('val'))):.1f}"
    assert re.search(r"<h1[^>]*><bdi>[^<]+, fine-tuned,</bdi> wins</h1>", head)
    assert re.search(rf'class="huge">{accuracy}', head) and "of its frozen features: " in head
    place.change_result("tuned", kept_epochs=(0,))  # then its probe is
    head = place.page().split('id="leaderboard"')[0]
    assert ", fine-tuned," not in head and "frozen features; 95" in head
    assert "of its frozen features: " not in head
    beaten = "; no better than the winner, which is the model to use"
    assert beaten not in head  # no epoch was better than the start, which says enough
    place.change_result("tuned", kept_epochs=(3,), val_top1=0.1)
    head = place.page().split('id="leaderboard"')[0]
    assert ", fine-tuned," not in head and beaten in head


def test_numbers_come_from_the_store(made: Place, written: dict[str, Any]) -> None:
    files, notes = feature_files(made.store, made.dataset)
    assert notes == [] and sorted(file.rate for file in files) == [100.0, 400 / 3, 200.0, 400.0]
    page = Path(written["path"]).read_text(encoding="utf-8")
    assert '<td class="n" data-v="400.0">400</td>' in page and '<td class="n" data-v="100.0">100</td>' in page  # fmt: skip
    rows = list(
        csv.reader((Path(written["figures"]) / "accuracy-cost.csv").read_text().splitlines())
    )
    assert [float(row[2]) for row in rows[1:]] == pytest.approx([2.5, 5.0, 7.5, 10.0])
    assert made.dataset.digest in page and all(file.digest in page for file in files)


def test_published_results_stand_beside_ours(place: Place, written: dict[str, Any]) -> None:
    page = place.page()
    assert "91.25 %" in page  # as it was published; a line without a number is left out
    headline = page.split('id="leaderboard"')[0]
    assert "58.2 %" in headline and "Someone (2020): frozen features" in headline
    assert headline.count("not run yet") == 1  # fine-tuned, of which there is a published result
    rows = (Path(written["figures"]) / "comparison.csv").read_text()
    assert 'published,"frozen features, Someone (2020)",58.2' in rows


def flags_as_text(page: str) -> str:
    """Return the page with its commands as one text each: flags are marked, so that no line ends within one."""
    return re.sub(r'<span class="flag">(--[\w-]+)</span>', r"\1", page)


def test_a_run_that_is_unfinished_or_of_another_state_does_not_end_the_page(place: Place) -> None:
    begin_run(place, "waiting")
    begin_run(place, "stale", dataset_digest="0" * 64)
    result = place.write()
    page = result.path.read_text()
    assert "resume with: <code>onepass finetune --run waiting</code>" in flags_as_text(page)
    (note,) = result.notes
    assert "finetune/stale" in note and note in page
    assert result.runs == 1 and "Error analysis" in page


def test_a_run_that_is_damaged_is_an_error_that_names_the_file(place: Place) -> None:
    run = add_run(place, "tuned", wrong=2)
    (run / "val_logits.npz").write_bytes(b"no archive")
    with pytest.raises(CorruptFileError, match=r"tuned/val_logits\.npz"):
        place.page()
    add_run(place, "tuned", wrong=2)
    (run / "config.json").write_text("{")
    with pytest.raises(CorruptFileError, match=r"tuned/config\.json"):
        place.page()


def test_a_damaged_feature_file_is_named(made: Place, tmp_path: Path) -> None:
    shutil.copytree(made.store, tmp_path / "store")
    shutil.copytree(made.runs, tmp_path / "runs")
    place = Place(tmp_path / "store", tmp_path / "runs", made.name)
    path = place.store / place.name / "features" / "toy@8.h5"
    path.write_bytes(path.read_bytes()[:500])
    result = place.write()
    assert len(result.notes) == 1 and "toy@8.h5" in result.notes[0]


def test_the_run_started_last_is_compared_unless_one_was_better_on_the_selection_split(place: Place) -> None:  # fmt: skip
    add_run(place, "b-first", wrong=1)
    begin_run(place, "b-first", created="2020-01-01")
    add_run(place, "a-second", wrong=50)
    assert compared(place) == "a-second"
    place.change_result("b-first", selection_top1=0.9)
    assert compared(place) == "b-first"


def compared(place: Place) -> str:
    """Name of the run that the page compares with the winner."""
    found = open_context(place.store, place.runs, place.name).compared
    assert found is not None
    return found.run.name


def test_ten_runs_fit_on_the_page(place: Place) -> None:
    for number in range(10):
        add_run(place, f"run-{number}", wrong=number)
    page = place.page()
    assert all(f"run-{number}" in page for number in range(10))


def test_two_classes_are_told_apart_by_sensitivity_and_specificity(two: Place) -> None:
    result = two.write()
    page = result.path.read_text(encoding="utf-8").replace("\u00a0", " ")
    assert {"roc", "precision-recall"} <= set(result.figure_names)
    truth = two.dataset.labels[two.dataset.rows("val")]
    missed, alarms = int((truth[:9] == 1).sum()), int((truth[:9] == 0).sum())
    sensitivity = 100 * (1 - missed / (truth == 1).sum())
    specificity = 100 * (1 - alarms / (truth == 0).sum())
    line = next(part for part in page.split("<tr>") if part.startswith("<td>fine-tuned</td>"))
    assert f"{sensitivity:.1f} %" in line and f"{specificity:.1f} %" in line
    assert f">{missed}<" in line and f">{alarms}<" in line


def test_the_operating_point_of_the_winner_stands_on_the_first_screen(
    two: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself the page promises 95 %; here the selection rows are too few for it, so that none is shown."""

    def shown() -> str:
        page = html.unescape(two.page()).replace("\u00a0", " ")
        return page.partition('<section id="leaderboard"')[0]

    board = Leaderboard.load(two.folder, two.name, two.dataset.digest)
    column = positive_column(two.dataset)
    assert "<dt>Detection</dt>" not in shown() and "are false alarms" not in shown()
    usual = parse_goal("sensitivity=0.8")
    monkeypatch.setattr(context, "USUAL", usual)
    point = choose_for_winner(board, two.dataset, usual, column)
    assert point.validation
    alarms = point.validation.false_alarms.value or 0
    first = shown()
    assert f'<p class="huge">{100 * alarms:.1f} %</p>' in first
    sound = two.dataset.class_names[1 - column]
    assert f"of “{sound}” are false alarms when 80 % of “{point.name}” are to be found;" in first
    assert "<dt>Accuracy</dt>" in first and "; frozen, threshold" in first
    other = choose_for_winner(board, two.dataset, parse_goal("cost=FP:1,FN:3"), 1 - column)
    place = board.head_folder(board.winner) / OperatingPoint.NAME
    other.write(place)
    assert f"of “{other.name}” are found at cost=FP:1,FN:3;" in shown()
    place.unlink()


def test_the_first_screen_is_that_of_the_model_to_use(
    two: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that held the selection split out has an operating point of its own."""
    monkeypatch.setattr(context, "USUAL", parse_goal("sensitivity=0.8"))
    dataset, folder = two.dataset, two.folder / "finetune" / "tuned"
    rows = dataset.rows("train")[::3]
    logits = 4 * np.eye(2, dtype=np.float32)[dataset.labels[rows]]
    path = logits_path(folder, "selection")
    write_atomic(path, pack_arrays({"logits": logits, "rows": rows}))
    points = open_context(two.store, two.runs, two.name).points
    path.unlink()
    assert set(points) == {"frozen", "fine-tuned"}
    assert points["fine-tuned"].positives == int(
        (dataset.labels[rows] == positive_column(dataset)).sum()
    )
    assert set(open_context(two.store, two.runs, two.name).points) == {"frozen"}


def test_the_commands_versions_and_the_protocol_are_there(place: Place) -> None:
    add_run(place, "tuned")
    page = place.page()
    rows = Leaderboard.load(place.folder, place.name, place.dataset.digest).winner.rows
    assert "onepass finetune --run tuned" in flags_as_text(page)
    assert f"{rows.selection} of the {rows.train:,} training images" in page
    assert "scikit-learn" in page and "A note" in page


def test_one_data_set_needs_no_name_and_several_do(place: Place) -> None:
    config = {"cache_dir": place.store, "runs_dir": place.runs}
    assert write_page(ReportConfig(**config)).dataset == place.name
    shutil.copytree(place.folder, place.runs / "other")
    with pytest.raises(UsageError, match=f"--dataset NAME.*{place.name}, other"):
        write_page(ReportConfig(**config))


def test_what_is_missing_or_stale_is_one_clear_error(place: Place, tmp_path: Path) -> None:
    config = {"dataset": place.name, "cache_dir": place.store}
    with refused(MissingFileError, "onepass classify --dataset"):
        write_page(ReportConfig(**config, runs_dir=tmp_path / "none"))
    stale = Leaderboard(place.folder, place.name, "f" * 64)
    stale.save()
    with pytest.raises(StaleError, match="ffffffff"):
        write_page(ReportConfig(**config, runs_dir=place.runs))


def test_what_analyses_found_is_shown_and_said_to_be_missing_before(place: Place) -> None:
    before = flags_as_text(place.page())
    for command in ("classify transfer", "classify inspect", "finetune ablate"):
        assert f"<code>onepass {command} --dataset {place.name}</code>" in before
    config: dict[str, Any] = {"dataset": place.name, "cache_dir": place.store, "runs_dir": place.runs}  # fmt: skip
    scores = score_features(TransferConfig(**config)).found
    found = inspect_dataset(InspectConfig(**config)).found
    whole = AblationLine("", 0.8, (0.7, 0.9), None, None, None, 2, 99, 3.0)
    without = AblationLine("flip", 0.7877, (0.7, 0.9), -0.0123, (-0.02, 0.01), 0.3, 2, 99, 3.0)
    ablation = Ablation("digits-test", "toy@8 + ridge", "de2020", DE2020_AUGMENTATION, 1, 2, 99, (whole, without))  # fmt: skip
    ablation.write(place.folder / "finetune" / ABLATION)
    page = place.page()
    assert "without flip" in page and "−1.2 (p = 0.3)" in page
    assert all(f"{one.logme:.3f}" in page for one in scores.scores)
    assert all(f"{one.kendall:+.2f}" in page for one in scores.agreement) and scores.agreement
    train = found.labels[0]
    assert f"{train.suspected:,} of {train.rows:,} labels" in page
    assert f"{found.duplicates.counts['val']} validation" in page
    assert f"distance {found.outliers[0].distance:.2f}" in page
    assert "<code>onepass classify transfer" not in page and "<code>onepass classify inspect" not in page  # fmt: skip


def test_a_sweep_is_shown_with_its_best_head(place: Place) -> None:
    result = run_sweeps(
        SweepConfig(
            dataset=place.name, cache_dir=place.store, runs_dir=place.runs, features=("toy@8",),
            head="dense", learning_rate=(1e-3, 1e-2), epochs=2,
        )
    )  # fmt: skip
    best = result.sweeps[0].best.best
    assert best is not None
    part = place.page().split(">Sweeps<")[1].split("</section>")[0]
    assert f"{100 * best.accuracy:.1f} %" in part and "toy@8" in part


def test_an_ensemble_is_the_third_headline_number(place: Place) -> None:
    add_run(place, "tuned")
    viewed = MemberRecord(f"{place.name}/tuned", ("", "flip"), 1.0)
    add_ensemble(place, viewed)
    page = place.page()
    headline = page.split('id="leaderboard"')[0]
    assert "ensemble" in headline and "43.2 %" in headline and "plain, flip" in page
    assert f"{place.name}/tuned (2 views)" in headline
    add_ensemble(place, viewed, replace(viewed, name="b"), MemberRecord("ridge-1", (), 0.1))
    headline = place.page().split('id="leaderboard"')[0]
    assert "average of 2 fine-tuned and 1 frozen models" in headline and "ridge-1" not in headline
    add_ensemble(place, viewed, replace(viewed, name="b"), replace(viewed, name="c"))
    headline = place.page().split('id="leaderboard"')[0]
    assert "average of 3 fine-tuned models" in headline
    add_ensemble(place, replace(viewed, views=("",)))
    assert "43.2 %" not in place.page()  # one network, one view: nothing was combined


def test_the_headline_ensemble_is_chosen_by_selection_and_not_by_validation(place: Place) -> None:
    add_run(place, "tuned")
    one, two = (MemberRecord(f"{place.name}/{name}", ("", "flip"), 0.5) for name in ("tuned", "b"))
    add_ensemble(place, one, accuracy=0.41, selection=0.52, name="val-a.csv")
    add_ensemble(place, one, two, accuracy=0.44, selection=0.51, name="val-b.csv")
    add_ensemble(place, two, accuracy=0.45, name="val-c.csv")
    page = place.page()
    headline = page.split('id="leaderboard"')[0]
    assert "41.0 %" in headline and "44.0 %" not in headline and "45.0 %" not in headline
    table = page.split(">Ensembles and test-time augmentation<")[1].split("</table>")[0]
    assert "52.0 %" in table and "51.0 %" in table and "45.0 %" in table


def test_an_artifact_that_is_damaged_is_an_error_that_names_it(place: Place) -> None:
    path = place.folder / "inspection.json"
    for content in ("{", "{}", '{"format": 99}'):
        path.write_text(content)
        with pytest.raises(CorruptFileError, match=r"inspection\.json.*onepass classify inspect"):
            place.write()


def test_an_artifact_of_another_state_of_the_data_set_is_left_out_with_a_note(place: Place) -> None:
    config: dict[str, Any] = {"dataset": place.name, "cache_dir": place.store, "runs_dir": place.runs}  # fmt: skip
    path = score_features(TransferConfig(**config)).path
    replace(Transferability.read(path), dataset_digest="0" * 64).write(path)
    result = place.write()
    assert "transferability" not in result.sections
    assert result.notes == [f"{path}: made from another state of the data set."]


def test_the_page_reads_artifacts_and_parses_nothing_itself() -> None:
    for path in (ROOT / "report").rglob("*.py"):
        text = path.read_text()
        assert "import json" not in text and "read_json" not in text, path
