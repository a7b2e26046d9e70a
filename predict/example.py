"""A short program beside a model file: pictures from disk in, classes out, with nothing of Onepass."""

from onepass.data.images import LEFT
from onepass.predict.pixel_classifier import PictureGeometry

DECODE = '''"""python {program} PICTURE…: needs Pillow, NumPy and {package}, nothing of Onepass."""
import io, json, pathlib, sys
import numpy as np
from PIL import Image, ImageOps
{imports}

def decode(file):  # as the training pictures were decoded
    image = Image.open(io.BytesIO(pathlib.Path(file).read_bytes()))
    parts = [n for n in (8, 4, 2, 1) if all(s % n == 0 and s >= n * {large} for s in image.size)]
    image.draft(image.mode, [s // [*parts, 1][0] for s in image.size])  # of a large JPEG
    image = ImageOps.exif_transpose(image)
    clear = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray(((np.asarray(image).astype("uint32") + 128) // 257).astype("uint8"))
    elif clear:  # over white
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("L" if grey else "RGB")
    image = image.convert("RGB").convert("{mode}") if image.mode not in ("L", "RGB") else image.convert("{mode}")
    size = ({side}, {side})
    {fit}
    return np.asarray(image).reshape(*size, {channels})

names = json.loads(pathlib.Path("labels.json").read_text("utf-8"))["class_names"]
{load}
for file in sys.argv[1:]:
    row = {run}
    print(file, names[row.argmax()], row.tolist(), sep="\\t")
'''
FILES = '''"""python {program} PICTURE…: JPEG and PNG files; needs TensorFlow, nothing of Onepass."""
import json, pathlib, sys
import tensorflow as tf

names = json.loads(pathlib.Path("labels.json").read_text("utf-8"))["class_names"]
model = tf.saved_model.load("{file}")
ask = model.signatures["serving_default"]
for file in sys.argv[1:]:
    content = tf.constant([pathlib.Path(file).read_bytes()])
    row = ask(image_bytes=content)["probabilities"].numpy()[0]
    print(file, names[row.argmax()], row.tolist(), sep="\\t")
'''
FITS = {
    "stretch": "image = image.resize(size, Image.Resampling.BICUBIC)",
    "crop": "image = ImageOps.fit(image, size, Image.Resampling.BICUBIC)",
    "pad": "image = pad(image, size)",
}
PAD = """
def pad(image, size):
    scale = size[0] / max(image.size)
    small = image.resize([max(1, round(n * scale)) for n in image.size], Image.Resampling.BICUBIC)
    a = np.asarray(small)
    edges = [((s - n) // 2, s - n - (s - n) // 2) for s, n in zip(size[::-1], a.shape[:2])]
    edges += [(0, 0)] * (a.ndim - 2)
    {filled}
"""
FILLED = {
    "pad": "return Image.fromarray(np.pad(a, edges))",
    "pad reflect": 'return Image.fromarray(np.pad(a, edges, "reflect"))',
    "pad mean": (
        "mean = np.rint(a.mean(axis=(0, 1))).astype(a.dtype)\n"
        "    out = np.empty((*size[::-1], *a.shape[2:]), a.dtype)\n"
        "    out[:] = mean\n"
        "    (t, _), (l, _) = edges[:2]\n"
        "    out[t : t + a.shape[0], l : l + a.shape[1]] = a\n"
        "    return Image.fromarray(out)"
    ),
}
# What is imported, which package that is, how a file is loaded, and how it is asked.
RUNTIMES = {
    "keras": (
        "import keras",
        "keras with TensorFlow",
        'model = keras.saving.load_model("{file}", safe_mode=True)',
        "np.asarray(model(decode(file)[None]))[0]",
    ),
    "saved_model": (
        "import tensorflow as tf",
        "tensorflow",
        'model = tf.saved_model.load("{file}")',
        "model.serve(decode(file)[None]).numpy()[0]",
    ),
    "onnx": (
        "import onnxruntime",
        "onnxruntime",
        'model = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])',
        'model.run(None, {{"pixels": decode(file)[None]}})[0][0]',
    ),
    "litert": (
        "from ai_edge_litert.interpreter import Interpreter",
        "ai-edge-litert",
        'model = Interpreter(model_path="{file}").get_signature_runner()',
        'model(pixels=decode(file)[None])["output_0"][0]',
    ),
    "openvino": (
        "import openvino",
        "openvino",
        'how = {{"INFERENCE_PRECISION_HINT": "f32"}}  # faster without, where bfloat16 is at hand\n'
        'model = openvino.Core().compile_model("{file}/model.xml", "CPU", how)',
        "model(decode(file)[None])[0][0]",
    ),
}


def examples(format: str, file: str, geometry: PictureGeometry) -> dict[str, str]:
    """Return the programs for a model file, by their names.

    Args:
        format, file, geometry: As in `example_text`.
    """
    programs = {f"example-{format}.py": example_text(format, file, geometry)}
    if format == "saved_model":
        name = "example-saved_model-files.py"
        programs[name] = FILES.format(program=name, file=file)
    return programs


def example_text(format: str, file: str, geometry: PictureGeometry) -> str:
    """Return the program for a model file that takes pixels.

    Args:
        format: One of `RUNTIMES`.
        file: Name of the model file.
        geometry: What a picture becomes.
    """
    imports, package, load, run = RUNTIMES[format]
    padded = geometry.fit.startswith("pad")
    if padded:
        imports += "\n" + PAD.format(filled=FILLED[geometry.fit]).rstrip()
    return DECODE.format(
        program=f"example-{format}.py",
        package=package,
        imports=imports,
        mode="RGB" if geometry.channels == 3 else "L",
        side=geometry.side,
        large=LEFT * geometry.side,
        channels=geometry.channels,
        fit=FITS["pad" if padded else geometry.fit],
        load=load.format(file=file),
        run=run.format(),
    )
