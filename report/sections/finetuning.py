"""The runs of fine-tuning: what each gained, and its curves."""

from dataclasses import dataclass
from typing import Any

from onepass.report.artifacts import FinetuneRun
from onepass.report.context import Material
from onepass.report.figures.ablation import ablation_figure, left_out_words
from onepass.report.figures.learning import learning_figures
from onepass.report.sections.section import Section


@dataclass(frozen=True, slots=True)
class Line:
    """A finished run.

    Attributes:
        run: The run.
        rows: Images it was trained on.
        training: Accuracy on the training images in its last epoch, 0 … 1; None where unknown.
        recipe: Its recipe in words.
    """

    run: FinetuneRun
    rows: int
    training: float | None
    recipe: str

    @property
    def gap(self) -> float | None:
        """Training accuracy less validation accuracy."""
        return None if self.training is None else self.training - self.run.result["val_top1"]


def build(material: Material) -> Section | None:
    """Return the runs; nothing where there is none."""
    ablation = material.records.get("finetune/ablation")
    if not (material.runs or material.ensembles or ablation):
        return None
    study = ablation_figure(ablation["lines"]) if ablation else None
    facts = {
        "lines": [_line(run, material) for run in material.runs if run.finished],
        "waiting": [run for run in material.runs if not run.finished],
        "compared": material.run,
        "ensembles": material.ensembles,
        "ablation": ablation,
        "left_out_words": left_out_words,
    }
    return Section(
        "finetuning",
        "Fine-tuning",
        "Fine-tuning",
        facts,
        [*learning_figures(material.runs), *([study] if study else [])],
    )


def _line(run: FinetuneRun, material: Material) -> Line:
    training = run.history[-1].get("accuracy") if run.history else None
    return Line(run, run.rows(material.dataset), training, _recipe(run.identity.get("recipe")))


def _recipe(recipe: Any) -> str:
    """Return what a recipe says, in words; switches that are off and numbers that are 0 are left out."""
    if not isinstance(recipe, dict):
        return ""
    words = []
    for name, value in recipe.items():
        text = name.replace("_", " ")
        if value is True:
            words.append(text)
        elif isinstance(value, dict):  # the augmentation
            words += [_recipe(value)] if _recipe(value) else []
        elif value and name != "epochs":  # which have a column of their own
            number = isinstance(value, int | float)
            words.append(f"{text} {value:g}" if number else f"{text} {value}")
    return ", ".join(words)
