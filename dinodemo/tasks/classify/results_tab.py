"""What the Classify tab shows and hands out of a classifier: measures, mistakes, doubtful labels, files."""

import shutil
from pathlib import Path

import gradio as gr

from ...web.components import passing_folder, problem_list
from . import draw
from .gathered import Fitted, Gathered

MOST_SHOWN = 36
CLASSES = "Classes"


def results(made: Fitted) -> tuple:
    """Return status, Stop, confusion, curve, pairs, mistakes, doubtful labels, and empty inputs."""
    photos, hidden = made.photos, gr.update(visible=False)
    counts = ", ".join(f"{name} {count}" for name, count in photos.counts().items())
    ending = f"\n\n{made.note}" if made.note else ""
    lines = f"{CLASSES}: {counts}.{ending}{problem_list(photos.problems)}"
    classifier = made.classifier
    if classifier is None:
        return lines, hidden, hidden, hidden, "", hidden, hidden, None, ""
    report = classifier.report_
    assert report is not None  # it was fitted just now
    text = f"{draw.summary(classifier)}\n\n{lines}"
    found = report.evaluation
    if found is None:
        return text, hidden, hidden, hidden, "", hidden, hidden, None, ""
    wrong = [(row, found.truth[i], found.predicted[i]) for i, row in enumerate(report.rows) if i in set(found.mistakes)]
    row_of = {int(row): i for i, row in enumerate(report.rows)}
    doubt = [(row, found.truth[row_of[int(row)]], found.predicted[row_of[int(row)]]) for row in report.suspicious]
    curve = draw.curve_picture(report)
    return (
        text,
        hidden,
        gr.update(value=draw.confusion_picture(found), visible=True),
        gr.update(value=curve, visible=curve is not None),
        draw.confused_pairs(found),
        _thumbs(photos, wrong, "{truth}, classified as {said}"),
        _thumbs(photos, doubt, "labelled {truth}, probably {said}"),
        None,
        "",
    )


def _thumbs(photos: Gathered, rows: list[tuple], caption: str):
    few = rows[:: max(1, len(rows) // MOST_SHOWN)][:MOST_SHOWN]
    pictures = [(photos.thumb(int(row)), caption.format(truth=truth, said=said)) for row, truth, said in few]
    return gr.update(value=pictures, visible=bool(pictures))


def _need(made: Fitted | None):
    if made is None or made.classifier is None:
        raise ValueError("there is no classifier yet; make one first")
    return made.classifier


def classifier_file(made: Fitted | None) -> tuple[str, bytes]:
    """Return the classifier as safetensors."""
    from .api import saved

    return "classifier.safetensors", saved(_need(made))


def confusion_file(made: Fitted | None) -> tuple[str, bytes]:
    """Return the confusion matrix as CSV."""
    classifier = _need(made)
    if classifier.report_ is None or classifier.report_.evaluation is None:
        raise ValueError("this classifier has no confusion matrix: it was loaded, or had too few photos; make it anew")
    return draw.confusion_csv(classifier.report_.evaluation)


def onnx_file(made: Fitted | None) -> tuple[str, bytes]:
    """Return backbone and classifier as one ONNX graph."""
    from .export import export_onnx

    path = passing_folder() / "classifier.onnx"
    export_onnx(_need(made), path)
    return path.name, path.read_bytes()


def folder_file(made: Fitted | None) -> tuple[str, bytes]:
    """Return a zip of the folder that transformers opens."""
    from .export import export_folder

    folder = passing_folder()
    export_folder(_need(made), folder / "model")
    return "classifier.zip", Path(shutil.make_archive(str(folder / "classifier"), "zip", folder / "model")).read_bytes()
