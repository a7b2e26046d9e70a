"""The fine-tuning runs: what each gained, learning curves, ablation and ensembles."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onepass.cache.artifacts import to_json
from onepass.data.dataset import ImageDataset
from onepass.finetune.session.result import FinetuneResult
from onepass.finetune.session.runs import Run
from onepass.report.context import ReportContext
from onepass.report.figures.ablation import ablation_figure, left_out_words
from onepass.report.figures.learning import learning_figures
from onepass.report.sections.section import Section


@dataclass(frozen=True, slots=True)
class Line:
    """A finished run.

    Attributes:
        name: Of the run.
        result: What it found.
        rows: Images it was trained on.
        recipe: Its recipe in words.
        compared: Whether it is the one that the page compares with the winner.
    """

    name: str
    result: FinetuneResult
    rows: int
    recipe: str
    compared: bool

    @property
    def training(self) -> float | None:
        """Accuracy on the training images in the last epoch; None without an epoch."""
        return self.result.history[-1].accuracy if self.result.history else None

    @property
    def gap(self) -> float | None:
        """Training accuracy less validation accuracy."""
        known = self.training is not None and self.result.val_top1 is not None
        return self.training - self.result.val_top1 if known else None  # type: ignore[operator]


def build(context: ReportContext) -> Section | None:
    """Return runs, ablation and ensembles; nothing where there is none of them."""
    ablation = context.ablation
    if not (context.runs or context.ensembles or ablation):
        return None
    study = ablation_figure(ablation.lines) if ablation else None
    facts = {
        "lines": [_line(run, run.result, context) for run in context.runs if run.result],
        "unfinished": [
            (run.name, run.config.made_by.command) for run in context.runs if not run.result
        ],
        "ensembles": context.ensembles,
        "ablation": ablation,
        "left_out_words": left_out_words,
    }
    figures = [*learning_figures(context.runs), *([study] if study else [])]
    return Section("finetuning", "Fine-tuning", "Fine-tuning", facts, figures)


def _line(run: Run, result: FinetuneResult, context: ReportContext) -> Line:
    return Line(
        name=run.name,
        result=result,
        rows=trained_rows(run, context.dataset),
        recipe=recipe_words(to_json(run.identity.recipe)),
        compared=context.compared is not None and run is context.compared.run,
    )


def trained_rows(run: Run, dataset: ImageDataset) -> int:
    """Return how many images a run was trained on."""
    if run.result and run.result.trained_rows:
        return run.result.trained_rows
    train = len(dataset.rows("train"))
    return min(run.identity.rows or train, train)


def recipe_words(recipe: Mapping[str, Any]) -> str:
    """Return a recipe in words; switches that are off and numbers that are 0 are left out."""
    words = []
    for name, value in recipe.items():
        text = name.replace("_", " ")
        if value is True:
            words.append(text)
        elif isinstance(value, Mapping):  # the augmentation
            words += [recipe_words(value)] if recipe_words(value) else []
        elif value and name != "epochs":  # which have a column of their own
            number = isinstance(value, int | float)
            words.append(f"{text} {value:g}" if number else f"{text} {value}")
    return ", ".join(words)
