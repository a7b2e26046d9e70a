"""The fine-tuning runs: what each gained, learning curves, ablation and ensembles."""

from collections.abc import Mapping
from typing import Any

from onepass.cache.artifacts import to_json
from onepass.data.dataset import ImageDataset
from onepass.finetune.session.runs import Run
from onepass.report.context import ReportContext
from onepass.report.figures.ablation import ablation_figure, left_out_words
from onepass.report.figures.learning import learning_figures
from onepass.report.sections.section import Section


def build(context: ReportContext) -> Section | None:
    """Return runs, ablation and ensembles; nothing where there is none of them."""
    ablation = context.ablation
    if not (context.runs or context.ensembles or ablation):
        return None
    study = ablation_figure(ablation.lines) if ablation else None
    facts = {
        "lines": [
            (run, trained_rows(run, context.dataset), recipe_words(to_json(run.identity.recipe)))
            for run in context.runs
            if run.result
        ],
        "compared": context.compared and context.compared.run,
        "unfinished": [
            (run.name, run.config.made_by.command) for run in context.runs if not run.result
        ],
        "ensembles": context.ensembles,
        "ablation": ablation,
        "left_out_words": left_out_words,
    }
    figures = [*learning_figures(context.runs), *([study] if study else [])]
    return Section("finetuning", "Fine-tuning", "Fine-tuning", facts, figures)


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
