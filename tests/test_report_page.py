"""The page: every number from a file, nothing loaded from anywhere, hostile names shown as text."""

import ast
import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_place import HOSTILE, NAMES, Place, add_run, begin_run, make_place

from conftest import ROOT
from onepass.cache.errors import MissingFileError, StaleError, UsageError
from onepass.cache.files import write_json
from onepass.classify.references import report_numbers
from onepass.report.artifacts import feature_files
from onepass.report.config import ReportConfig
from onepass.report.page import write_page


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
def place(made: Place, tmp_path: Path) -> Iterator[Place]:
    """The same, to be changed: results of its own."""
    shutil.copytree(made.runs, tmp_path / "runs")
    yield Place(made.store, tmp_path / "runs", made.name)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two classes, with a fine-tuned run."""
    place = make_place(tmp_path_factory.mktemp("two"), classes=2, name="pair")
    add_run(place, "tuned", wrong=9)
    return place


def test_the_command_writes_one_file_and_says_where(place: Place) -> None:
    words = ["report", "--dataset", place.name, "--cache-dir", str(place.store), "--runs-dir", str(place.runs)]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    page = place.folder / "report.html"
    assert f"Page: {page}" in done.stdout and done.stdout.startswith(f"{place.name}: 8 probes, 0 ")
    assert page.stat().st_size < 5_000_000 and not done.stderr
    again = subprocess.run([sys.executable, "-m", *words, "--json"], capture_output=True, text=True, cwd=ROOT)  # fmt: skip
    result = json.loads(again.stdout)
    assert result["path"] == str(page) and result["probes"] == 8 and result["notes"] == []
    for name in result["figure_names"]:
        assert (Path(result["figures"]) / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (Path(result["figures"]) / f"{name}.csv").stat().st_size > 0


def test_nothing_is_loaded_and_only_our_own_script_may_run(place: Place) -> None:
    add_run(place, "tuned")
    text = place.write().path.read_text(encoding="utf-8")
    page = Parsed(text)
    addresses = [a[name] for _, a in page.tags for name in ("src", "href", "data", "action", "srcset") if name in a]  # fmt: skip
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in text and "@import" not in text
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("style", "script"):
        (block,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not [a for _, a in page.tags for name in a if name.startswith("on") or name == "style"]


def test_hostile_names_are_text_wherever_they_stand(place: Place) -> None:
    add_run(place, HOSTILE.replace("/", ""))
    text = place.write().path.read_text(encoding="utf-8")
    page = Parsed(text)
    assert len(page.all("script")) == 1 and not page.all("i")
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.all("img"))
    words = " ".join(page.texts)
    for name in [HOSTILE, NAMES[1], NAMES[2], "A note <script>alert(3)</script>", "Digits <b>bold</b>"]:  # fmt: skip
        assert name in words
    assert sum(HOSTILE in image["alt"] for image in page.all("img")) >= 5
    with (place.folder / "figures" / "confusion.csv").open(newline="") as file:
        cells = {cell for row in csv.reader(file) for cell in row}
    assert "'=1+1" in cells and "=1+1" not in cells


def test_the_use_of_the_gpus_stands_beside_them_only_where_it_is_known(place: Place) -> None:
    add_run(place, "known", devices=["gpu:0"], gpu_use=0.968)
    add_run(place, "unknown", devices=["cpu:0"], gpu_use=None)
    cells = " ".join(Parsed(place.write().path.read_text(encoding="utf-8")).texts)
    assert "gpu:0, GPU use 96.8\u00a0%" in cells and cells.count("GPU use") == 1


def test_the_page_holds_after_classify_alone(place: Place) -> None:
    result = place.write()
    assert result.runs == 0 and "finetuning" not in result.sections
    assert {"headline", "leaderboard", "tradeoffs", "trust", "mistakes", "time", "reproduce"} == set(result.sections)  # fmt: skip
    assert {"standing", "accuracy-size", "accuracy-cost", "path-logistic", "path-ridge", "reliability", "confusion", "mistakes", "time"} == set(result.figure_names)  # fmt: skip


def test_numbers_come_from_the_leaderboard(place: Place) -> None:
    before = place.page()
    results = json.loads((place.folder / "leaderboard.json").read_text())["results"]
    best = max(range(len(results)), key=lambda i: (not results[i]["baseline"], results[i]["selection_top1"], -results[i]["selection_log_loss"]))  # fmt: skip
    assert f'<p class="huge">{100 * results[best]["val_top1"]:.1f} %</p>' in before
    assert "12.3 %" not in before and "11.1 … 13.9 %" not in before
    place.change("leaderboard.json", ("results", best, "val_interval"), [0.111, 0.139])
    place.change("leaderboard.json", ("results", best, "val_top1"), 0.123)
    place.change("leaderboard.json", ("results", best, "selection_top1"), 0.998)
    place.change("leaderboard.json", ("results", best, "seconds"), 7384.0)
    page = place.page()
    assert '<p class="huge">12.3 %</p>' in page and "11.1 … 13.9 %" in page
    assert "99.8 %" in page and "2 h 03 min" in page


def test_numbers_come_from_the_run(place: Place) -> None:
    add_run(place, "tuned", wrong=5)
    count = len(place.dataset.rows("val"))
    assert f"5 of {count} reported images" in place.page()
    place.change("finetune/tuned/result.json", ("val_top1",), 0.4321)
    place.change("finetune/tuned/result.json", ("p_value",), 0.2)
    place.change("finetune/tuned/result.json", ("history", 2, "accuracy"), 0.7777)
    page = place.page()
    assert (
        "43.2 %" in page
        and "77.8 %" in page
        and "no significant difference (McNemar, p = 0.2)" in page
    )
    add_run(place, "tuned", wrong=8)
    assert f"8 of {count} reported images" in place.page()


def test_numbers_come_from_the_store(made: Place, place: Place) -> None:
    files, notes = feature_files(place.store, place.dataset)
    assert notes == [] and sorted(file.rate for file in files) == [100.0, 400 / 3, 200.0, 400.0]
    place.write()
    page = place.page()
    assert '<td class="n" data-v="400.0">400</td>' in page and '<td class="n" data-v="100.0">100</td>' in page  # fmt: skip
    rows = list(
        csv.reader((place.folder / "figures" / "accuracy-cost.csv").read_text().splitlines())
    )
    assert [float(row[2]) for row in rows[1:]] == pytest.approx([2.5, 5.0, 7.5, 10.0])
    assert place.dataset.digest in page and all(file.digest in page for file in files)


def test_published_results_and_the_report_stand_beside_ours(place: Place) -> None:
    page = place.page()
    assert "91.2 %" in page and "The report" not in page  # 91.25, and a line without a number
    from onepass.report.context import gather

    material = gather(place.store, place.runs, place.name)
    assert material.reference == {}
    reference = report_numbers("tiny-imagenet")
    assert [line["accuracy"] for line in reference["lines"]] == [58.2, 75.7, 74.8]


def test_tiny_imagenet_is_shown_beside_the_report(place: Place) -> None:
    from dataclasses import replace

    from onepass.report.context import gather
    from onepass.report.page import render
    from onepass.report.sections import build_sections

    material = gather(place.store, place.runs, place.name)
    reference = report_numbers("tiny-imagenet")
    material = replace(material, reference=reference)
    page = render(material, build_sections(material)).replace("\u00a0", " ")
    assert all(f"{number} %" in page for number in (58.2, 75.7, 74.8))
    assert page.count("not run yet") == 2  # fine-tuned and ensemble


def test_unfinished_damaged_and_foreign_runs_do_not_end_the_page(place: Place) -> None:
    begin_run(place, "waiting")
    begin_run(place, "foreign", dataset_digest="0" * 64)
    broken = begin_run(place, "broken")
    (broken / "config.json").write_text("{")
    short = add_run(place, "short", wrong=2)
    (short / "val_logits.npz").write_bytes(b"no archive")
    result = place.write()
    page = result.path.read_text()
    assert "go on with: <code>onepass finetune --run waiting</code>" in page
    assert any("foreign" in note for note in result.notes)
    assert any(note.startswith("broken") for note in result.notes)
    assert any("val_logits.npz" in note for note in result.notes)
    assert all(f"{note}"[:40] in page for note in result.notes if "<" not in note)
    assert result.runs == 2 and "What is still wrong" in page


def test_a_damaged_feature_file_is_named(made: Place, tmp_path: Path) -> None:
    shutil.copytree(made.store, tmp_path / "store")
    shutil.copytree(made.runs, tmp_path / "runs")
    place = Place(tmp_path / "store", tmp_path / "runs", made.name)
    path = place.store / place.name / "features" / "toy@8.h5"
    path.write_bytes(path.read_bytes()[:500])
    result = place.write()
    assert len(result.notes) == 1 and "toy@8.h5" in result.notes[0]


def test_the_run_begun_last_is_compared_unless_one_was_better_on_the_selection_split(place: Place) -> None:  # fmt: skip
    from onepass.report.context import gather

    add_run(place, "b-first", wrong=1)
    place.change("finetune/b-first/config.json", ("made_by", "created"), "2020-01-01")
    add_run(place, "a-second", wrong=50)
    assert gather(place.store, place.runs, place.name).run.name == "a-second"  # type: ignore[union-attr]
    place.change("finetune/b-first/result.json", ("selection_top1",), 0.9)
    assert gather(place.store, place.runs, place.name).run.name == "b-first"  # type: ignore[union-attr]


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


def test_the_commands_versions_and_the_protocol_are_there(place: Place) -> None:
    add_run(place, "tuned")
    page = place.page()
    rows = json.loads((place.folder / "leaderboard.json").read_text())["results"][0]["rows"]
    assert "onepass finetune --run tuned" in page
    assert f"{rows['selection']} of the {rows['train']:,} training images" in page
    assert "scikit-learn" in page and "A note" in page


def test_one_data_set_needs_no_name_and_several_do(place: Place) -> None:
    config = {"cache_dir": place.store, "runs_dir": place.runs}
    assert write_page(ReportConfig(**config)).dataset == place.name
    shutil.copytree(place.folder, place.runs / "other")
    with pytest.raises(UsageError, match=f"--dataset NAME.*{place.name}, other"):
        write_page(ReportConfig(**config))


def test_what_is_missing_or_stale_is_one_clear_error(place: Place, tmp_path: Path) -> None:
    config = {"dataset": place.name, "cache_dir": place.store}
    with pytest.raises(MissingFileError, match="onepass classify --dataset"):
        write_page(ReportConfig(**config, runs_dir=tmp_path / "none"))
    for number in range(len(json.loads((place.folder / "leaderboard.json").read_text())["results"])):  # fmt: skip
        place.change("leaderboard.json", ("results", number, "dataset_digest"), "f" * 64)
    place.change("leaderboard.json", ("dataset_digest",), "f" * 64)
    with pytest.raises(StaleError, match="ffffffff"):
        write_page(ReportConfig(**config, runs_dir=place.runs))


def test_what_is_read_of_a_run_is_what_finetune_writes() -> None:
    """The report may not import finetune; this test reads it, and notices when a field is renamed."""
    written = {
        statement.target.id
        for path in (ROOT / "finetune").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name in ("FinetuneResult", "EpochRow")
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    read = ("history", "start", "probe_top1", "val_top1", "val_interval", "p_value", "epoch", "loss", "accuracy", "seconds")  # fmt: skip
    assert set(read) <= written


def test_what_other_commands_left_is_shown_and_said_to_be_missing_before(place: Place) -> None:
    before = place.page()
    for command in ("classify transfer", "classify inspect", "finetune tables", "finetune ablate"):
        assert f"<code>python -m {command} --dataset {place.name}</code>" in before
    digest = {"dataset_digest": place.dataset.digest}
    score = {"features": [HOSTILE], "logme": 1.2345, "h_score": 2.0, "nce": None, "leep": None, "zero_training": None, "head": "ridge", "selection_top1": 0.8, "seconds": 1.0}  # fmt: skip
    agreement = [{"score": "logme", "count": 3, "kendall": 0.91, "spearman": -0.82}]
    write_json(place.folder / "transferability.json", {**digest, "scores": [score, score], "agreement": agreement})  # fmt: skip
    row = int(place.dataset.rows("train")[0])
    issue = {"row": row, "given": 0, "suggested": 1, "suggested_probability": 0.765}
    pair = {"row": int(place.dataset.rows("val")[0]), "other": row, "exact": True, "mirrored": False}  # fmt: skip
    write_json(
        place.folder / "inspection.json",
        {
            **digest, "features": ["toy@8"],
            "labels": [{"split": "train", "rows": 1200, "suspected": 37, "worst": [issue]}],
            "duplicates": {"counts": {"val": 11}, "exact": {"val": 1}, "conflicts": 3, "pairs": [pair]},
            "outliers": [{"row": row, "distance": 1.23}],
        },
    )  # fmt: skip
    tables = {"backbones": [{"backbone": "vgg16", "val": 0.4567, "report_val": 0.582}], "heads": [], "finetune": []}  # fmt: skip
    write_json(place.folder / "tables.json", tables)
    whole = {"left_out": "", "selection_accuracy": 0.8, "interval": [0.7, 0.9], "difference": None, "difference_interval": None, "p_value": None, "epochs": 2, "rows": 99, "seconds": 3.0}  # fmt: skip
    without = {**whole, "left_out": "flip", "difference": -0.0123, "difference_interval": [-0.02, 0.01], "p_value": 0.3}  # fmt: skip
    write_json(place.folder / "finetune" / "ablation.json", {"start": "toy", "lines": [whole, without]})  # fmt: skip
    page = place.page()
    assert "without flip" in page and "−1.2 (p = 0.3)" in page
    assert "1.234" in page and "+0.91" in page and "-0.82" in page
    assert "37 of 1,200 labels" in page and "76.5 %" in page and "every pixel the same" in page
    assert "11 val images" in page and "distance 1.23" in page
    assert "45.7 %" in page and "58.2 %" in page
    assert "classify transfer" not in page and "classify inspect" not in page


def test_an_ensemble_is_the_third_headline_number(place: Place) -> None:
    add_run(place, "tuned")
    members = [{"name": f"{place.name}/tuned", "views": ["", "flip"], "weight": 1.0}]
    record = {"members": members, "weights": "equal", "temperature": 1.25, "val_top1": 0.4321, "val_interval": [0.4, 0.46]}  # fmt: skip
    write_json(place.folder / "finetune" / "tuned" / "val+flip.csv.json", record)
    page = place.page()
    headline = page.split('id="leaderboard"')[0]
    assert "ensemble" in headline and "43.2 %" in headline and "plain, flip" in page
    many = [
        members[0],
        {**members[0], "name": "b"},
        {"name": "ridge-1", "views": [], "weight": 0.1},
    ]
    write_json(
        place.folder / "finetune" / "tuned" / "val+flip.csv.json", {**record, "members": many}
    )
    headline = place.page().split('id="leaderboard"')[0]
    assert "2 fine-tuned and 1 frozen" in headline and "ridge-1" not in headline
    plain = {**record, "members": [{**members[0], "views": [""]}]}
    write_json(place.folder / "finetune" / "tuned" / "val+flip.csv.json", plain)
    assert "43.2 %" not in place.page()  # one network, one view: nothing was put together


def test_an_optional_file_that_is_damaged_or_foreign_is_left_out_and_named(place: Place) -> None:
    (place.folder / "inspection.json").write_text("{")
    write_json(place.folder / "tables.json", {"dataset_digest": "0" * 64})
    write_json(place.folder / "transferability.json", {"dataset_digest": place.dataset.digest})
    result = place.write()
    assert len(result.notes) == 3 and not {"data", "tables", "transfer"} & set(result.sections)
