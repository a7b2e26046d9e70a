"""What a person reads at the end of `onepass predict` and `onepass predict export`."""

from typing import TYPE_CHECKING

from onepass.cache.commandline.advice import onepass_command
from onepass.cache.commandline.table import table
from onepass.cache.commandline.terminal import one_line
from onepass.cache.progress import counted, human_bytes

if TYPE_CHECKING:
    from onepass.classify.leaderboard.prediction_record import PredictionRecord
    from onepass.predict.export import ExportResult
    from onepass.predict.pictures.answers import Answer
    from onepass.predict.pictures.pipeline import PicturesResult
    from onepass.predict.split import PredictResult

SPLITS = {"val": "validation", "test": "test"}


def predict_text(result: "PredictResult") -> str:
    """Return what was predicted by what, how well, where it lies, and what comes next."""
    record = result.record
    split = SPLITS[record.split]
    lines = [f"{counted(record.rows, 'prediction')} for the {split} images by {_members(record)}"]
    if record.selection_top1 is not None and record.selection_interval is not None:
        found = _top1("selection", record.selection_top1, record.selection_interval)
        lines.append(f"{found}, to choose models by")
    scores = ((record.val_top1, record.val_interval), (record.test_top1, record.test_interval))
    for top1, interval in ((t, i) for t, i in scores if t is not None and i is not None):
        lines.append(f"{_top1(split, top1, interval)}, log-loss {record.log_loss:.3f}")
    lines += [one_line(text) for text in (result.point, result.prior) if text]
    if learnt := _learnt(record):
        lines.append(f"{learnt}, learnt on {counted(record.learnt_on, 'selection row')}")
    lines += [f"Note: {one_line(record.note)}"] if record.note else []
    lines += [f"File: {result.path}", f"Record: {result.record_path}"]
    step = "report" if any(member.views for member in record.members) else "finetune"
    return "\n".join([*lines, f"Next: {onepass_command(step, '--dataset', record.dataset)}"])


def pictures_text(result: "PicturesResult") -> str:
    """Return the first answers as a table, how many pictures there were of each class, and where all lie."""
    rows = [_picture_cells(answer) for answer in result.first]
    head = ("picture", "class", "probability", "margin", "novelty")
    known = any(row[4] for row in rows)
    shown = 5 if known else 4
    lines = table([row[:shown] for row in (head, *rows)], right=(2, 3, 4))
    if (more := result.pictures - len(result.first)) > 0:
        lines.append(f"… and {more:,} more")
    most = ", ".join(f"{one_line(name)} {n:,}" for name, n in result.classes.most_common(5))
    rest = len(result.classes) - 5
    lines.append(
        f"{counted(result.pictures, 'picture')} by {result.model}: {most or 'none classified'}"
        + (f" and {rest:,} more {'class' if rest == 1 else 'classes'}" if rest > 0 else "")
    )
    lines += [one_line(text) for text in (result.point, result.prior) if text]
    lines += [f"Note: {one_line(result.note)}"] if result.note else []
    lines += [f"left open: {result.open:,}"] if result.open else []
    lines += [f"could not be read: {result.unread:,}"] if result.unread else []
    lines += [f"File: {result.path}"] if result.path else []
    lines += [f"Copied to: {result.copied_to}"] if result.copied_to else []
    lines += [f"Explained in: {result.explained_in}"] if result.explained_in else []
    if result.kept:
        lines.append(f"Record: {result.kept} (these pictures were held out of the data set)")
        lines.append(f"Next: {onepass_command('report', '--dataset', result.kept.parent.name)}")
    return "\n".join(lines)


def _picture_cells(answer: "Answer") -> tuple[str, str, str, str, str]:
    file = one_line(answer.file)
    if answer.unread:
        return file, f"({one_line(answer.reason)})", "", "", ""
    best, margin = answer.top[0], answer.margin or 0.0
    name = one_line(best.class_name)
    words = f"open, perhaps {name} ({answer.reason})" if answer.is_open else name
    novelty = "" if answer.novelty is None else f"{answer.novelty:.3f}"
    return file, words, f"{best.probability:.3f}", f"{margin:.3f}", novelty


def _top1(split: str, top1: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return (
        f"{split.capitalize()} top-1: {100 * top1:.1f} % "
        f"(95 % interval {100 * low:.1f} % to {100 * high:.1f} %)"
    )


def _members(record: "PredictionRecord") -> str:
    """Return each model with its weight, and the views of the runs among them."""
    parts = [
        (f"{member.weight:.2f} × " if len(record.members) > 1 else "")
        + f"{member.name} ({member.description})"
        for member in record.members
    ]
    views = max((member.views for member in record.members), key=len)
    seen = f", mean of {len(views)} views: {view_text(views)}" if len(views) > 1 else ""
    return " + ".join(parts) + seen


def _learnt(record: "PredictionRecord") -> str:
    """Return in words what was learnt on selection rows; "" for nothing."""
    weights = "weights" if record.weights == "learnt" else ""
    temperature = f"temperature {record.temperature:.3g}" if record.temperature != 1 else ""
    found = " and ".join(filter(None, (weights, temperature)))
    return found[:1].upper() + found[1:]


def export_text(result: "ExportResult") -> str:
    """Return each file with how far its probabilities are from the model's."""
    lines = [
        f"{result.run}: checked on {counted(result.checked, 'validation image')} against the model"
    ]
    lines += [
        f"  {one.format:<11}  {one.path} ({human_bytes(1e6 * one.megabytes)}): "
        f"probabilities differ by at most {one.difference:.1g}"
        for one in result.models
    ]
    lines.append(f"Class names: {result.labels} (and inside each file)")
    lines += [
        f"Next: {onepass_command('predict', str(one.path))} IMAGES"
        for one in result.models
        if one.format == "folder"
    ]
    return "\n".join(lines)


def view_text(views: tuple[str, ...]) -> str:
    """Return views in words, such as "plain, flip"."""
    return ", ".join(view or "plain" for view in views)
