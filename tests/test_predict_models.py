"""MODEL: a data set, a probe or a run; what is none of them names the nearest."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import processes
import pytest
from classify_store import NAME, digits, write_features
from finished_runs import write_run, write_runs
from PIL import Image

import onepass
from onepass.__main__ import run
from onepass.cache.arrays import pack_arrays, unpack_arrays
from onepass.cache.errors import InvalidInputError, MissingFileError, UnknownNameError, UsageError
from onepass.classify.config import ClassifyConfig
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.pipeline import run_probes
from onepass.classify.protocol.evaluate import selected_on
from onepass.data.dataset import open_dataset
from onepass.finetune.session.best import beats_winner
from onepass.finetune.session.result import RESULT, FinetuneResult
from onepass.finetune.session.runs import read_run


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A data set with a leaderboard and the finished runs r1, r2 and r3."""
    store, runs, dataset = write_runs(tmp_path_factory.mktemp("models"))
    write_features(store, dataset, digits().X)
    places = {"cache_dir": store, "runs_dir": runs}
    run_probes(ClassifyConfig(dataset=NAME, head=("ridge", "logistic"), **places))
    return places


def test_a_data_set_is_its_winner_and_a_probe_has_its_own_temperature(places) -> None:
    found = run_probes(ClassifyConfig(dataset=NAME, head=("ridge", "logistic"), **places))
    winner = onepass.load_predictor(NAME, **places)
    assert winner.name == f"{NAME}/{found.winner}"
    assert winner.temperature == found.results[0].temperature
    other = onepass.load_predictor(f"{NAME}/{found.results[1].id}", **places)
    assert other.description == "ridge on toy@8"


def test_a_run_is_scaled_and_an_average_holds_both_kinds(places) -> None:
    tuned = onepass.load_predictor(f"{NAME}/r1", **places)
    assert tuned.description == "fine-tuned" and tuned.temperature != 1 and tuned.learnt_on == 112
    winner = onepass.load_predictor(NAME, **places)
    both = onepass.load_predictor(NAME, f"{NAME}/r1", weights="learnt", **places)
    assert [member.name for member in both.members] == [winner.name, tuned.name]
    assert sum(both.weights) == pytest.approx(1)
    accuracy = {}
    for one in (tuned, winner, both):
        prediction = one.predict_split("val")
        truth = one.dataset.labels[prediction.rows]
        accuracy[one.name] = float(np.mean(prediction.classes == truth))
        assert prediction.probabilities.shape == (len(truth), 10)
        np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1, atol=1e-5)
        assert prediction.names == [one.dataset.names[row] for row in prediction.rows]
    assert accuracy[both.name] >= accuracy[winner.name] > accuracy[tuned.name]


def _score(runs: Path, run: str, **values: object) -> None:
    path = runs / NAME / "finetune" / run / RESULT
    replace(FinetuneResult.read(path), **values).write(path)


def test_a_data_set_is_its_best_run_by_the_selection_split(places, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(places["runs_dir"], runs)
    moved = {**places, "runs_dir": runs}
    probe = onepass.load_predictor(NAME, **moved).name
    found = run_probes(ClassifyConfig(dataset=NAME, head=("ridge", "logistic"), **places))
    assert probe == f"{NAME}/{found.winner}"  # no run is scored
    dataset = open_dataset(places["cache_dir"], NAME)
    for name, noise in (("r4", 0.4), ("r5", 0.3)):
        write_run(runs, dataset, name, noise, held_out=True)
    scored = {"probe_top1": 0.5, "val_interval": (0.4, 0.9), "p_value": 0.5}
    _score(runs, "r4", selection_top1=1.0, val_top1=0.6, **scored)
    _score(runs, "r5", selection_top1=0.9, val_top1=0.7, **scored)
    assert onepass.load_predictor(NAME, **moved).name == f"{NAME}/r4"
    assert onepass.load_predictor(f"{NAME}#1", **moved).name == probe
    both = onepass.load_predictor(NAME, f"{NAME}#1", **moved)
    assert [member.name for member in both.members] == [f"{NAME}/r4", probe]
    _score(runs, "r4", kept_epochs=(0,))  # the weights of the probe did best
    assert onepass.load_predictor(NAME, **moved).name == probe
    _score(runs, "r4", kept_epochs=(1,), val_top1=0.4)  # validation chooses nothing
    assert onepass.load_predictor(NAME, **moved).name == f"{NAME}/r4"
    shutil.move(board := runs / NAME / "leaderboard.json", tmp_path)
    assert onepass.load_predictor(NAME, **moved).name == f"{NAME}/r4"
    shutil.move(tmp_path / "leaderboard.json", board)


def test_a_run_that_does_worse_than_the_winner_is_not_the_model_to_use(
    places, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(places["runs_dir"], runs)
    moved = {**places, "runs_dir": runs}
    # better than the probe it started from, which is not the winner
    scored = {"probe_top1": 0.5, "val_interval": (0.4, 0.9), "p_value": 0.5}
    _score(runs, "r1", selection_top1=1.0, val_top1=0.8, **scored)
    winner = onepass.load_predictor(f"{NAME}#1", **moved).name
    assert onepass.load_predictor(NAME, **moved).name == winner
    dataset = open_dataset(places["cache_dir"], NAME)
    board = Leaderboard.load(runs / NAME, NAME, dataset.digest)

    def beats(run: Path, **change: object) -> bool:
        return beats_winner(read_run(run), replace(board, **change), dataset)

    # the winner's own answers: a tie
    equal = write_run(runs, dataset, "equal", 0.4, held_out=True)
    _score(runs, "equal", selection_top1=1.0, val_top1=0.9, **scored)
    kept = load_probabilities(board.head_folder(board.winner), board.winner.rows)
    rows = selected_on(dataset, board.winner)
    path = equal / "selection_logits.npz"
    logits = np.log(kept.selection.astype(np.float32) + 1e-6)
    path.write_bytes(pack_arrays({"logits": logits, "rows": rows}))
    assert not beats(equal)
    # one more is right
    wrong = int(np.flatnonzero(logits.argmax(1) != dataset.labels[rows])[0])
    logits[wrong] = -9
    logits[wrong, dataset.labels[rows[wrong]]] = 0
    path.write_bytes(pack_arrays({"logits": logits, "rows": rows}))
    assert beats(equal)
    # rows that the winner learnt from tell nothing
    others = np.setdiff1d(dataset.rows("train"), rows)[: len(rows)]
    path.write_bytes(pack_arrays({"logits": logits, "rows": others}))
    assert beats(equal)
    _score(runs, "equal", selection_top1=board.winner.selection_top1)
    assert not beats(equal)
    # nothing was held out
    path.unlink()
    for val_top1, wins in ((board.winner.val_top1, True), (board.winner.val_top1 - 0.01, False)):
        _score(runs, "equal", val_top1=val_top1)
        assert beats(equal) == wins


def test_a_run_its_data_set_stands_for_meets_the_goal_on_record(places, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(places["runs_dir"], runs)
    moved = {**places, "runs_dir": runs}
    heads = ClassifyConfig(
        dataset=NAME, head=("ridge", "logistic"), at="sensitivity=0.9", positive="n03", **moved
    )
    run_probes(heads)
    kept = onepass.load_predictor(NAME, **moved).point
    values = {"selection_top1": 0.9, "val_top1": 1.0, "val_interval": (0.8, 1.0), "p_value": 0.5}
    dataset = open_dataset(places["cache_dir"], NAME)
    write_run(runs, dataset, "r4", 0.4, held_out=True)
    _score(runs, "r4", **values)
    point = onepass.load_predictor(NAME, **moved).point
    assert (point.goal, point.positive) == (kept.goal, kept.positive)
    assert point.threshold != kept.threshold  # chosen on what this run says of rows held out of it
    assert onepass.load_predictor(f"{NAME}/r4", **moved).point is None
    assert onepass.load_predictor(NAME, at="none", **moved).point is None
    (runs / NAME / "finetune" / "r4" / "selection_logits.npz").unlink()
    with pytest.raises(InvalidInputError, match=r"sensitivity=0.9: a threshold .* --at none"):
        onepass.load_predictor(NAME, **moved)


def test_logits_in_another_order_are_put_in_row_order(places, tmp_path: Path) -> None:
    shutil.copytree(places["runs_dir"], tmp_path / "runs")
    moved = {**places, "runs_dir": tmp_path / "runs"}
    path = tmp_path / "runs" / NAME / "finetune" / "r1" / "val_logits.npz"
    arrays = unpack_arrays(path.read_bytes())
    np.savez(path, **{name: array[::-1] for name, array in arrays.items()})
    expected = onepass.load_predictor(f"{NAME}/r1", **places).predict_split("val")
    found = onepass.load_predictor(f"{NAME}/r1", **moved).predict_split("val")
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_an_unknown_model_names_the_nearest(places) -> None:
    with pytest.raises(UnknownNameError, match="data set 'digits-tes' is unknown; did you mean"):
        onepass.load_predictor("digits-tes", **places)
    with pytest.raises(UnknownNameError, match=f"model of {NAME} 'r4' is unknown; did you mean r"):
        onepass.load_predictor(f"{NAME}/r4", **places)
    winner = onepass.load_predictor(NAME, **places).name
    with pytest.raises(UnknownNameError, match=f"did you mean {winner.partition('/')[2]}"):
        onepass.load_predictor(winner[:-2], **places)


def test_a_line_of_the_leaderboard_and_a_head_name_a_probe(places) -> None:
    found = run_probes(ClassifyConfig(dataset=NAME, head=("ridge", "logistic"), **places))
    ids = [result.id for result in found.results]
    assert len(ids) == 2
    for number, line in enumerate(found.results, 1):
        for model in (f"{NAME}#{number}", f"{NAME}/{line.head}", f"{NAME}/{line.id}"):
            assert onepass.load_predictor(model, **places).name == f"{NAME}/{line.id}"
    majority = onepass.load_predictor(f"{NAME}/majority", **places)  # a baseline
    assert majority.name.startswith(f"{NAME}/majority-")
    both = onepass.load_predictor(f"{NAME}#1", f"{NAME}#2", **places)
    assert [member.name for member in both.members] == [f"{NAME}/{name}" for name in ids]
    with pytest.raises(UnknownNameError, match=r"#3: expected a line of the leaderboard, 1 to 2"):
        onepass.load_predictor(f"{NAME}#3", **places)
    with pytest.raises(UnknownNameError, match=r"model of .* 'lda' is unknown"):
        onepass.load_predictor(f"{NAME}/lda", **places)
    for wrong in (f"{NAME}#0", f"{NAME}#", f"{NAME}#1/ridge", "#1", f"{NAME}/a/b"):
        with pytest.raises(UsageError, match="DATASET#LINE"):
            onepass.load_predictor(wrong, **places)


def test_a_run_comes_before_a_head_of_its_name(places, tmp_path: Path) -> None:
    shutil.copytree(places["runs_dir"], tmp_path / "runs")
    runs = tmp_path / "runs" / NAME / "finetune"
    (runs / "r1").rename(runs / "logistic")
    found = onepass.load_predictor(f"{NAME}/logistic", **{**places, "runs_dir": tmp_path / "runs"})
    assert found.description == "fine-tuned"


@pytest.mark.slow
def test_the_next_command_works_for_class_folders_with_a_space(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0)
    for kind, bright in (("great tit", 0), ("crow", 120)):
        folder = tmp_path / "birds" / kind
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = pictures.integers(bright, bright + 100, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"no {number}.png")
    for words in (
        "data prepare folder --source birds",
        "extract --dataset birds --backbone tiny --size 16",
        "classify --dataset birds --head ridge",
    ):
        done = processes.run(*words.split(), cwd=tmp_path, TINY_BACKBONE="1")
        assert done.returncode == 0, done.stderr
    command = done.stdout.splitlines()[-1].strip()
    assert command == "onepass predict birds --split val"
    predicted = processes.run(*command.split()[1:], cwd=tmp_path, TINY_BACKBONE="1")
    assert predicted.returncode == 0, predicted.stderr
    (answers,) = (tmp_path / "runs" / "birds" / "predictions").glob("*.csv")
    assert "great tit" in answers.read_text()
    course = processes.run(*command.split()[1:], "--format", "course", cwd=tmp_path)
    assert course.returncode == 1 and "use --format csv" in course.stderr


def test_the_same_model_by_two_names_is_refused(places) -> None:
    winner = onepass.load_predictor(NAME, **places).name
    with pytest.raises(UsageError, match=f"each model once, received {winner}, {winner}"):
        onepass.load_predictor(NAME, winner, **places)


def test_without_a_leaderboard_the_runs_are_named(places, tmp_path: Path) -> None:
    shutil.copytree(places["runs_dir"] / NAME / "finetune", tmp_path / "runs" / NAME / "finetune")
    moved = {**places, "runs_dir": tmp_path / "runs"}
    assert onepass.load_predictor(f"{NAME}/r1", **moved).name == f"{NAME}/r1"
    with pytest.raises(UnknownNameError, match="known: r1, r2, r3"):
        onepass.load_predictor(f"{NAME}/logistic", **moved)
    with pytest.raises(MissingFileError, match="no leaderboard yet"):
        onepass.load_predictor(NAME, **moved)


def test_an_unfinished_run_is_no_model(places, tmp_path: Path) -> None:
    shutil.copytree(places["runs_dir"], tmp_path / "runs")
    (tmp_path / "runs" / NAME / "finetune" / "r1" / "result.json").unlink()
    with pytest.raises(MissingFileError, match="no finished run; finished ones: r2, r3"):
        onepass.load_predictor(f"{NAME}/r1", **{**places, "runs_dir": tmp_path / "runs"})


def test_an_option_that_does_not_exist_is_refused(places) -> None:
    with pytest.raises(UsageError, match="split: expected one of"):
        onepass.load_predictor(NAME, split="val", **places)


@pytest.mark.parametrize(
    ("words", "now"),
    [
        (["classify", "predict", "--dataset", "a"], "onepass predict DATASET"),
        (["finetune", "predict", "--run", "a/b"], "onepass predict DATASET/RUN"),
        (["finetune", "export", "--run", "a/b"], "onepass predict export DATASET/RUN"),
    ],
)
def test_an_old_spelling_names_the_new_one(words: list[str], now: str, capsys) -> None:
    assert run(words) == 2
    said = capsys.readouterr().err
    assert now in said and said.count("\n") == 1


def test_no_model_at_all_is_said_in_words() -> None:
    with pytest.raises(UsageError, match="at least one MODEL"):
        onepass.load_predictor()
