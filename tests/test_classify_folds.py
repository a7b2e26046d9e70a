"""Cross-validation on the stored features: the same folds for every head, honest figures, resumed where it stopped."""

from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features
from scipy import stats
from stored import store_dataset

from conftest import fields_of, refused
from onepass.cache.commandline.command import STOPPED, main
from onepass.cache.errors import InvalidInputError, UsageError
from onepass.classify import config as classify_config
from onepass.classify.__main__ import COMMANDS
from onepass.classify.analysis.series import find_parted_series
from onepass.classify.config import ClassifyConfig, EnsembleConfig
from onepass.classify.ensemble import run_ensemble
from onepass.classify.heads.neighbours.knn import Neighbours
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import METRICS, corrected_interval, corrected_t_test
from onepass.classify.pipeline import run_probes
from onepass.classify.protocol.evaluate import (
    ProtocolRows,
    metric_of,
    protocol_rows,
    run_probe,
    selected_on,
)
from onepass.classify.resampling import folds as room
from onepass.classify.resampling import parallel
from onepass.classify.resampling.folds import (
    CrossValidation,
    Fold,
    FoldedProbe,
    Setting,
    compared,
    run_folds,
)
from onepass.data.dataset import open_dataset
from onepass.data.splits import KEPT

HEADS = ("centroid", "ridge", "knn")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("folds") / "store"
    write_features(store, write_dataset(store, digits()), digits().X)
    return store


def config(store: Path, runs: Path, **changes) -> ClassifyConfig:
    known = {"dataset": NAME, "head": HEADS, "folds": 4, "cache_dir": store, "runs_dir": runs}
    return ClassifyConfig(**{**known, **changes})


def without_times(path: Path) -> dict:
    found = fields_of(path)
    del found["made_by"]
    for probe in found["probes"]:
        for fold in probe["folds"]:
            del fold["seconds"]
    return found


def probe(name: str, *folds: dict[str, float]) -> FoldedProbe:
    """A probe that scored each setting so in each fold."""
    settings = [tuple(Setting({"C": C}, share, 1.0) for C, share in fold.items()) for fold in folds]
    made = tuple(Fold(0, number, 30, 10, s, 0.1) for number, s in enumerate(settings))
    return FoldedProbe((name,), (), "", "toy", {}, 1, False, made)


def validation(*probes: FoldedProbe, folds: int) -> CrossValidation:
    return CrossValidation(
        1, NAME, "", folds, 1, 0, "quick", "top1", None, 40, 0, "images", probes, {}
    )


class TestStatistics:
    def test_the_corrected_test_is_nadeau_and_bengios(self) -> None:
        gains = np.random.default_rng(0).normal(0.01, 0.02, 50)
        plain = stats.ttest_1samp(gains, 0).statistic
        shrunk = plain * np.sqrt((1 / 50) / (1 / 50 + 1 / 4))
        assert corrected_t_test(gains, 1 / 4) == pytest.approx(2 * stats.t.sf(shrunk, 49))
        assert corrected_t_test(gains, 0) == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)

    def test_the_interval_agrees_with_the_test(self) -> None:
        gains = np.random.default_rng(1).normal(0.02, 0.02, 10)
        for shift in corrected_interval(gains, 1 / 4):
            assert corrected_t_test(gains - shift, 1 / 4) == pytest.approx(0.05)

    def test_differences_without_spread(self) -> None:
        assert corrected_t_test(np.zeros(5), 0.25) == 1
        assert corrected_t_test(np.full(5, 0.1), 0.25) == 0


class TestChoice:
    def test_no_fold_chooses_for_itself(self) -> None:
        """Setting 2 is best in the last fold alone; the other folds do not know."""
        found = probe("a", {1: 0.5, 2: 0.4}, {1: 0.6, 2: 0.5}, {1: 0.1, 2: 1.0})
        assert found.merits().tolist() == [0.4, 0.5, 0.1]  # folds 1, 2 see fold 3's lucky 2
        found = probe("a", {1: 0.5, 2: 0.4}, {1: 0.6, 2: 0.5}, {1: 0.1, 2: 0.15})
        assert found.merits().tolist() == [0.5, 0.6, 0.1]
        assert found.chosen() == {"C": 1}

    def test_only_settings_that_every_fold_has_tried_are_chosen(self) -> None:
        found = probe("a", {1: 0.5, 2: 0.9}, {1: 0.5}, {1: 0.5, 2: 0.9})
        assert found.merits().tolist() == [0.5, 0.5, 0.5]

    def test_a_lower_log_loss_is_better(self) -> None:
        loss = METRICS["log-loss"]
        better, worse = probe("a", {1: -0.2}, {1: -0.3}), probe("b", {1: -0.5}, {1: -0.4})
        found = replace(validation(worse, better, folds=2), metric="log-loss")
        lines = compared(found)
        assert [line.probe.name for line in lines] == ["a toy", "b toy"]
        assert lines[0].mean == pytest.approx(0.25) and lines[1].gain == pytest.approx(0.2)
        assert found.by == loss

    def test_folds_without_a_meaning_are_left_out(self) -> None:
        some = probe("a", {1: 0.5}, {1: None}, {1: 0.7})
        (line,) = compared(validation(some, folds=3))
        assert line.mean == pytest.approx(0.6)
        with pytest.raises(InvalidInputError, match="at least two folds"):
            compared(validation(probe("a", {1: 0.5}, {1: None}), folds=2))


class TestCommand:
    def test_every_head_is_scored_in_the_same_folds_and_val_is_not_read(self, store, tmp_path) -> None:  # fmt: skip
        result = run_folds(config(store, tmp_path, repeats=2))
        assert [p.head for p in result.found.probes] == ["majority", *HEADS]
        for one in result.found.probes:
            assert [(f.repeat, f.number) for f in one.folds] == [(r, k) for r in (0, 1) for k in range(4)]  # fmt: skip
            assert all(f.fitted + f.held == result.found.rows for f in one.folds)
        assert result.lines[-1].probe.baseline and result.lines[0].mean > 0.9
        assert [p.name for p in (tmp_path / NAME).iterdir() if p.suffix == ".json"] == ["folds.json"]  # fmt: skip
        assert not (tmp_path / NAME / "scorings.jsonl").exists()

    def test_more_repeats_add_to_those_that_are_there(self, store, tmp_path) -> None:
        once = run_folds(config(store, tmp_path))
        more = run_folds(config(store, tmp_path, repeats=2))
        assert (once.ran, more.ran) == (16, 16)
        whole = run_folds(config(store, tmp_path / "whole", repeats=2))
        assert without_times(more.path) == without_times(whole.path)
        fewer = run_folds(config(store, tmp_path))
        assert fewer.ran == 0
        assert [line.mean for line in fewer.lines] == [line.mean for line in once.lines]
        assert run_folds(config(store, tmp_path, seed=1)).ran == 16

    def test_a_stop_resumes_at_the_next_fold(self, store, tmp_path, monkeypatch, capsys) -> None:
        whole = run_folds(config(store, tmp_path / "whole")).path
        searched, real = [], room.search_fold

        def interrupted(*arguments):
            if len(searched) == 6:
                raise KeyboardInterrupt
            searched.append(arguments)
            return real(*arguments)

        monkeypatch.setattr(room, "search_fold", interrupted)
        words = ["--dataset", NAME, "--head", *HEADS, "--folds", "4"]
        words += ["--cache-dir", str(store), "--runs-dir", str(tmp_path)]
        assert main("classify", COMMANDS, words) == STOPPED
        monkeypatch.setattr(room, "search_fold", real)
        assert main("classify", COMMANDS, words) == 0
        assert "10 of 16 fits run now" in capsys.readouterr().out
        assert without_times(tmp_path / NAME / "folds.json") == without_times(whole)

    def test_any_number_of_processes_gives_the_same_figures(self, store, tmp_path, monkeypatch) -> None:  # fmt: skip
        monkeypatch.setattr(parallel, "WORTH", 0)
        started, real = [], joblib.Parallel
        monkeypatch.setattr(joblib, "Parallel", lambda **how: started.append(how) or real(**how))
        every = {"head": ("lda", "ridge", "logistic", "dense", "knn"), "folds": 3}
        found = []
        for workers in (1, 2):
            monkeypatch.setattr(parallel, "cores", lambda workers=workers: workers)
            result = run_folds(config(store, tmp_path / str(workers), **every))
            found.append(without_times(result.path))
        assert found[0] == found[1] and [how["n_jobs"] for how in started] == [2] * 6

    def test_the_table_and_the_protocol(self, store, tmp_path, capsys) -> None:
        words = ["--dataset", NAME, "--head", "lda", "centroid", "--folds", "3"]
        assert main("classify", COMMANDS, [*words, "--cache-dir", str(store), "--runs-dir", str(tmp_path)]) == 0  # fmt: skip
        text = capsys.readouterr().out
        assert "in 3 folds, equal images together" in text
        assert "the validation split is not read" in text and "Nadeau and Bengio, 2003" in text
        assert "baseline  none      majority" in text

    def test_heads_are_compared_by_the_metric_that_was_asked_for(self, store, tmp_path) -> None:
        result = run_folds(config(store, tmp_path, metric="log-loss"))
        assert result.found.by.name == "log-loss"
        means = [line.mean for line in result.lines]
        assert means == sorted(means) and means[-1] == pytest.approx(np.log(10), abs=0.02)

    @pytest.mark.parametrize("wrong", [{"folds": 1}, {"folds": 0, "repeats": 2}, {"repeats": 0}])
    def test_too_few_folds_are_refused(self, store, tmp_path, wrong) -> None:
        with refused(UsageError, "expected"):
            config(store, tmp_path, **wrong)


def patients(store: Path, **columns) -> None:
    """150 patients of four crops each, whose labels are tosses of a coin."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(150), 4)
    pixels = rng.integers(0, 255, (600, 4, 4, 1)).astype(np.uint8)
    labels = rng.integers(0, 2, 150)[patient]
    split = np.where(np.arange(600) % 4 == 3, 1, 0)
    names = [f"patient_{p:03d}_{row % 4}.png" for row, p in enumerate(patient)]
    dataset = store_dataset(store, NAME, pixels, labels, split, names, ["no", "yes"], **columns)
    X = rng.normal(size=(150, 32))[patient] + 0.1 * rng.normal(size=(600, 32))
    write_features(store, dataset, X.astype(np.float16))


class TestGroups:
    def test_coin_tosses_are_learnt_by_heart_unless_patients_are_kept_together(self, tmp_path) -> None:  # fmt: skip
        patients(tmp_path / "crops")
        patients(tmp_path / "grouped", group=[f"patient {row // 4}" for row in range(600)])
        crops, grouped = (
            run_folds(config(tmp_path / name, tmp_path / f"{name}-runs", head=("knn",), folds=5))
            for name in ("crops", "grouped")
        )
        assert crops.lines[0].mean > 0.95
        (knn,) = (line for line in grouped.lines if line.probe.head == "knn")
        assert 0.4 < knn.mean < 0.6
        assert (crops.found.together, grouped.found.together) == ("images", "groups")
        assert crops.series and crops.series.share > 0.95 and grouped.series is None

    def test_classify_warns_where_the_nearest_image_has_nearly_the_same_name(self, tmp_path, capsys) -> None:  # fmt: skip
        patients(tmp_path / "crops")
        patients(tmp_path / "grouped", group=[f"patient {row // 4}" for row in range(600)])
        for name in ("crops", "grouped"):
            folders = ["--cache-dir", str(tmp_path / name), "--runs-dir", str(tmp_path / f"{name}-runs")]  # fmt: skip
            assert main("classify", COMMANDS, ["--dataset", NAME, "--head", "knn", *folders]) == 0
            text = capsys.readouterr().out
            assert ("--group-by" in text and "patient_0" in text) == (name == "crops")

    def test_names_alone_are_no_reason_to_warn(self, tmp_path) -> None:
        """The same names, but the pictures of a patient have nothing in common."""
        patients(tmp_path)
        dataset = open_dataset(tmp_path, NAME)
        X = np.random.default_rng(1).normal(size=(600, 32)).astype(np.float32)
        assert find_parted_series(dataset, X, dataset.rows("train"), dataset.rows("val")) is None

    def test_a_column_says_the_folds(self, tmp_path) -> None:
        patients(tmp_path / "s", fold=[f"f{row // 4 % 3}" for row in range(600)])
        result = run_folds(config(tmp_path / "s", tmp_path / "runs", head=("ridge",), folds=3))
        assert result.found.together == "column"
        assert {fold.held for fold in result.found.probes[0].folds} == {150}
        with refused(UsageError, "expected --folds 3 without --repeats"):
            run_folds(config(tmp_path / "s", tmp_path / "runs", head=("ridge",), folds=5))

    def test_a_class_in_one_fold_of_the_column_is_never_held_out(self, tmp_path) -> None:
        data = digits(3)
        fold = np.where(data.labels == 2, 1, np.arange(len(data.labels)) % 2)
        dataset = store_dataset(
            tmp_path, NAME, data.pixels, data.labels, data.split,
            [str(row) for row in range(len(fold))], ["a", "b", "c"], fold=[str(f) for f in fold],
        )  # fmt: skip
        train = dataset.rows("train")
        dealt = room._deal(dataset, train, config(tmp_path, tmp_path, folds=2), 0)
        assert np.array_equal(dealt == KEPT, data.labels[train] == 2)


class TestSelectionByFolds:
    def test_every_training_row_is_held_out_once_and_nothing_else_is_read(self, store, tmp_path) -> None:  # fmt: skip
        result = run_probes(config(store, tmp_path, folds=0, select="folds"))
        assert "by five folds of the" in result.protocol
        dataset = open_dataset(store, NAME)
        train = dataset.rows("train")
        for probe in result.results:
            assert probe.rows.selection == probe.rows.fit == len(train)
            kept = load_probabilities(tmp_path / NAME / "heads" / probe.id, probe.rows)
            assert kept.selection.shape == (len(train), 10)
            right = kept.selection.astype(np.float32).argmax(axis=1) == dataset.labels[train]
            assert right.mean() == pytest.approx(probe.selection_top1, abs=0.005)
            assert probe.selection_top1 == pytest.approx(max(t.accuracy for t in probe.trials))
            assert np.array_equal(selected_on(dataset, probe), train)

    def test_few_rows_are_chosen_by_folds_unless_they_cannot_be_dealt(self, monkeypatch) -> None:
        data = digits()
        count = int((data.split == 0).sum())
        monkeypatch.setattr(classify_config, "FEW_ROWS", count + 1)
        dataset = data.opened()
        for select, expected in (("auto", "folds"), ("split", "split"), ("folds", "folds")):
            rows = protocol_rows(dataset, 0, select)
            assert rows.select == rows.counts().select == expected
        monkeypatch.setattr(classify_config, "FEW_ROWS", count)
        assert protocol_rows(dataset, 0, "auto").select == "split"
        monkeypatch.undo()
        pairs = data.opened(groups=[f"g{row % 3}" for row in range(len(data.labels))])
        monkeypatch.setattr(classify_config, "FEW_ROWS", count + 1)
        assert protocol_rows(pairs, 0, "auto").select == "split"  # three groups are no five folds
        with pytest.raises(InvalidInputError, match="5 folds: expected different"):
            protocol_rows(pairs, 0, "folds")

    @pytest.mark.parametrize(
        ("name", "few"),
        [("top1", False), ("log-loss", False), ("balanced", True), ("average-precision", True)],
    )
    def test_a_metric_of_a_rare_class_has_as_few_rows_as_that(self, name: str, few: bool, monkeypatch) -> None:  # fmt: skip
        data = digits()
        dataset = data.opened(
            labels=(data.labels == 0).astype(np.int32), class_ids=["other", "zero"], class_names=["other", "zero"]
        )  # fmt: skip
        rare = int(dataset.labels[dataset.rows("train")].sum())
        monkeypatch.setattr(classify_config, "FEW_ROWS", 5 * rare)  # of which "other" has more
        rows = protocol_rows(dataset, 0, "auto", metric_of(dataset, name))
        assert rows.select == ("folds" if few else "split")
        monkeypatch.setattr(classify_config, "FEW_ROWS", rare)
        assert protocol_rows(dataset, 0, "auto", metric_of(dataset, name)).select == "split"

    def test_the_result_says_how_it_was_chosen_and_an_ensemble_follows(self, store, tmp_path, monkeypatch) -> None:  # fmt: skip
        monkeypatch.setattr(classify_config, "FEW_ROWS", 2_000)
        result = run_probes(config(store, tmp_path, folds=0, select="auto"))
        assert (
            "by five folds of the" in result.protocol and result.results[0].rows.select == "folds"
        )
        again = run_probes(config(store, tmp_path, folds=0, select="folds"))
        assert again.ran == 0 and again.winner == result.winner
        made = run_ensemble(EnsembleConfig(dataset=NAME, cache_dir=store, runs_dir=tmp_path))
        assert {line.rows.select for line in (*made.members, *made.ensembles)} == {"folds"}

    def test_folds_that_compare_choose_nothing(self, store, tmp_path) -> None:
        with pytest.raises(UsageError, match=r"--select folds: expected no --folds"):
            config(store, tmp_path, folds=5, select="folds")

    def test_out_of_fold_probabilities_are_of_heads_that_have_not_seen_the_row(self) -> None:
        """Labels that nothing can know: whoever has seen them is right, whoever has not is not."""
        rng = np.random.default_rng(0)
        X, labels = rng.normal(size=(300, 64)).astype(np.float32), rng.integers(0, 2, 300)
        train, val = np.arange(250), np.arange(250, 300)
        rows = ProtocolRows(train, train, train, val, val[:0], np.arange(250) % 5)
        outcome = run_probe(Neighbours(), X, labels, rows)
        assert 0.35 < (outcome.selection.argmax(axis=1) == labels[train]).mean() < 0.65

    def test_probes_by_folds_and_by_the_selection_split_are_not_ranked_together(self, store, tmp_path, capsys) -> None:  # fmt: skip
        words = ["--dataset", NAME, "--head", "ridge", "centroid"]
        words += ["--cache-dir", str(store), "--runs-dir", str(tmp_path)]
        assert main("classify", COMMANDS, words) == 0
        assert main("classify", COMMANDS, [*words, "--select", "folds"]) == 0
        assert "selected on the selection split: 2 probes" in capsys.readouterr().out
        assert main("classify", COMMANDS, ["ensemble", *words[:2], *words[-4:]]) == 0
        board = Leaderboard.load(tmp_path / NAME, NAME, open_dataset(store, NAME).digest)
        assert {probe.rows.select for probe in board.ranked} == {"folds"} and len(board.ranked) == 4
        assert main("classify", COMMANDS, words) == 0
        assert "selected by folds: 4 probes" in capsys.readouterr().out
