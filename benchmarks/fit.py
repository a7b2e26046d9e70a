"""Which way of making squares of 4:3 photographs serves frozen features best.

    python benchmarks/fit.py [--rows 4000]

Photographs cut to 4:3: the solar cells of elpv-dataset (300 x 225 px of 300 x 300, grey) and training
images of Tiny ImageNet (64 x 48 px of 64 x 64, 50 classes). For each `--fit` and `--pad` they are prepared and seen
by EfficientNet-Lite0 at 128 px; a ridge classifier (its penalty chosen by leave-one-out on the training
rows) is fitted in four stratified folds, so that every image is predicted once by a head that did not see
it. Beside the accuracy stands its 95 % interval, and the p-value of McNemar's test against black borders.
The last line is JSON.
"""

import argparse
import io
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from common import machine, tiny_imagenet

WAYS = (("pad", "black"), ("pad", "mean"), ("pad", "reflect"), ("crop", None), ("stretch", None))
CLASSES = 50


def write_cut(folder: Path, label: str, name: str, content: bytes) -> None:
    """Write the middle of a square image, as a 4:3 photograph without further loss."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        low = image.height // 8
        path = folder / label / (Path(name).stem + ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        image.crop((0, low, image.width, low + image.height * 3 // 4)).save(path)


def solar_cells(folder: Path, rows: int) -> None:
    """Write the solar cells."""
    from onepass.data.sources import open_source
    from onepass.data.sources.base import Request

    with open_source("solar-cells", Request(None, "", folder, 0)) as source:
        for item in source.items[:rows]:
            write_cut(folder, source.class_ids[item.label], item.name, item.read())


def tiny(folder: Path, rows: int) -> None:
    """Write training images of some classes of Tiny ImageNet."""
    with zipfile.ZipFile(tiny_imagenet() or "") as archive:
        names = sorted(n for n in archive.namelist() if "/train/" in n and n.endswith(".JPEG"))
        classes = sorted({name.split("/")[2] for name in names})[::4][:CLASSES]
        taken = dict.fromkeys(classes, 0)
        for name in names:
            label = name.split("/")[2]
            if taken.get(label, rows) < rows // CLASSES:
                taken[label] += 1
                write_cut(folder, label, name, archive.read(name))


def correct(store: Path, name: str) -> np.ndarray:
    """Return (N,) bool: whether each image was predicted right by a head that had not seen it."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    import onepass

    features = onepass.open_features(name, "efficientnet_lite0@128", cache_dir=store)
    head = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(1, 5, 9)))
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    X = np.asarray(features.X, np.float32)
    return cross_val_predict(head, X, features.labels, cv=folds) == features.labels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4000, help="images of each data set at most")
    options = parser.parse_args()
    import onepass
    from onepass.classify.metrics import confidence_interval, mcnemar

    print(machine())
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for kind, write in (("solar", solar_cells), ("tiny", tiny)):
            source, store = Path(place) / kind, Path(place) / "store"
            write(source, options.rows)
            black = None
            for fit, pad in WAYS:
                way = fit if pad is None else f"{fit}-{pad}"
                name = f"{kind}-{way}"
                onepass.prepare_dataset("folder", source=str(source), name=name, fit=fit, pad=pad, cache_dir=store)  # fmt: skip
                onepass.extract_features(name, "efficientnet_lite0", size=128, cache_dir=store)
                right = correct(store, name)
                black = right if black is None else black
                low, high = confidence_interval(right)
                p = mcnemar(int((right & ~black).sum()), int((black & ~right).sum()))
                found.setdefault(way, {})[kind] = float(right.mean())
                print(
                    f"{kind:<6} {way:<12} {100 * right.mean():.2f} % ({100 * low:.2f} to {100 * high:.2f}) "
                    f"of {len(right):,}, p = {p:.3f}",
                    flush=True,
                )
    for way, accuracies in found.items():
        print(f"mean   {way:<12} {100 * np.mean(list(accuracies.values())):.2f} %")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
