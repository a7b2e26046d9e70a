"""What a person reads at the end of `onepass predict` and `onepass predict export`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onepass.predict.export import ExportResult
    from onepass.predict.split import PredictResult


def predict_text(result: "PredictResult") -> str:
    """Return what was predicted by what, how well, where it lies, and what comes next."""
    record = result.record
    lines = [f"{record.rows:,} predictions for the {record.split} images by {_members(result)}"]
    if record.val_top1 is not None and record.val_interval is not None:
        low, high = record.val_interval
        split = "Validation" if record.split == "val" else "Test"
        lines.append(
            f"{split} top-1: {100 * record.val_top1:.1f} % (95 % interval {100 * low:.1f} % to "
            f"{100 * high:.1f} %), log-loss {record.log_loss:.3f}"
        )
    if record.learnt_on:
        lines.append(
            f"Temperature {record.temperature:.3g}, learnt on {record.learnt_on:,} selection rows"
        )
    lines += [f"Note: {record.note}"] if record.note else []
    lines += [f"File: {result.path}", f"Record: {result.record_path}"]
    is_run = any(member.views for member in record.members)
    following = "report" if is_run else "finetune"
    return "\n".join([*lines, f"Next: onepass {following} --dataset {record.dataset}"])


def _members(result: "PredictResult") -> str:
    members = result.record.members
    several = len(members) > 1
    parts = [
        f"{f'{member.weight:.2f} × ' if several else ''}{member.name} ({made_of})"
        for member, made_of in zip(members, result.made_of, strict=True)
    ]
    views = max((member.views for member in members), key=len)
    seen = f", mean of {len(views)} views: {', '.join(v or 'plain' for v in views)}"
    return " + ".join(parts) + (seen if len(views) > 1 else "")


def export_text(result: "ExportResult") -> str:
    """Return each file with how far it is from the model."""
    lines = [f"{result.run}: checked on {result.checked} validation images against the model"]
    lines += [
        f"  {one.format:<11}  {one.path} ({one.megabytes:.1f} MB): "
        f"probabilities differ by at most {one.difference:.1g}"
        for one in result.models
    ]
    return "\n".join([*lines, f"Class names: {result.labels} (and inside each file)"])
