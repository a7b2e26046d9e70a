"""Writes kerashub.csv from the presets that the installed keras-hub knows.

    python -m onepass.extract.backbones.kerashub_presets

Run it after keras-hub was updated, and look at the difference. Taken are the presets of
plain image backbones (pixels in, one feature map or token sequence out) and of models of images
and text, for their image half. Left out is a
preset whose download address ends in another preset's name: keras-hub 0.32 would fetch
EfficientNet B1 for its three EdgeTPU presets.
"""

import re
import sys
from typing import Any

from onepass.cache.csv_text import csv_text
from onepass.cache.files import write_atomic
from onepass.extract.backbones.table import FOLDER

# Backbone class → smallest size (px), and what the size must be a multiple of; a multiple
# of 0 means that position embeddings or windows allow the training size only.
CLASSES = {
    "CLIPBackbone": (0, 0),
    "CSPNetBackbone": (32, 1),
    "DeiTBackbone": (0, 0),
    "DenseNetBackbone": (32, 1),
    "DINOV2Backbone": (28, 14),
    "DINOV3Backbone": (32, 16),
    "EfficientNetBackbone": (32, 1),
    "HGNetV2Backbone": (32, 1),
    "MiTBackbone": (32, 32),
    "MobileNetBackbone": (32, 1),
    "MobileNetV5Backbone": (64, 32),
    "ResNetBackbone": (32, 1),
    "SigLIPBackbone": (0, 0),
    "SwinTransformerBackbone": (0, 0),
    "VGGBackbone": (32, 1),
    "ViTBackbone": (0, 0),
    "XceptionBackbone": (71, 1),
}
# Training sizes (px) that neither a preset's name nor its description tells; first match counts.
# Source: the models' papers and timm's pretrained configurations, which the weights come from.
NATIVE = (
    (r"efficientnet_b1_", 240),
    (r"efficientnet_b2_", 256),
    (r"efficientnet_b3_|efficientnet2_rw_s", 288),
    (r"efficientnet_b4_|efficientnet2_rw_m", 320),
    (r"efficientnet_b5_sw_ft", 448),
    (r"efficientnet_b5_", 416),
    (r"dinov2", 518),
    (r"mobilenetv5", 768),
    (r"xception", 299),
    (r"", 224),
)
# Width of the pooled vector, where the architecture fixes it; twice the hidden width where
# the class token and the mean of the patches are concatenated.
WIDTHS = (
    (r"^resnet_(vd_)?(18|34)_", 512),
    (r"^resnet_", 2048),
    (r"^densenet_121", 1024),
    (r"^densenet_169", 1664),
    (r"^densenet_201", 1920),
    (r"^vgg_|^mit_b[1-5]", 512),
    (r"^mit_b0", 256),
    (r"^xception_|^hgnetv2_", 2048),
    (r"^efficientnet_(b0|b1|lite0)_", 1280),
    (r"^swin_(tiny|small)", 768),
    (r"^swin_base", 1024),
    (r"^swin_large", 1536),
    (r"^deit_tiny", 2 * 192),
    (r"^(deit|dinov2(_with_registers)?|dinov3_vit)_small", 2 * 384),
    (r"^(vit|deit|dinov2(_with_registers)?|dinov3_vit)_base", 2 * 768),
    (r"^(vit|dinov2(_with_registers)?|dinov3_vit)_large", 2 * 1024),
    (r"^vit_huge|^dinov3_vit_huge_plus", 2 * 1280),
    (r"^dinov2(_with_registers)?_giant", 2 * 1536),
    (r"^dinov3_vit_7b", 2 * 4096),
    (r"^clip_vit_(base|b_32)_", 2 * 768),
    (r"^clip_vit_large_", 2 * 1024),
    (r"^clip_vit_h_14_", 2 * 1280),
    (r"^clip_vit_g_14_", 2 * 1408),
    (r"^clip_vit_bigg_14_", 2 * 1664),
    (r"^siglip2?_base_", 768),
    (r"^siglip2?_large_", 1024),
    (r"^siglip2?_so400m_|^medsiglip_", 1152),
    (r"^siglip2_giant_", 1536),
    (r"", 0),
)
# Only what the publishers state; "" where the preset's page has to be read.
LICENCES = (
    (r"^dinov2", "Apache-2.0"),
    (r"^dinov3", "DINOv3 License"),
    (r"^mit_", "NVIDIA Source Code License"),
    (r"^mobilenetv5", "Gemma Terms of Use"),
    (r"^siglip", "Apache-2.0"),
    (r"^clip_.*_laion2b_", "MIT"),
    (r"^medsiglip", "Health AI Developer Foundations Terms of Use"),
    (r"", ""),
)
COLUMNS = (
    "name",
    "class",
    "handle",
    "native_size",
    "min_size",
    "multiple",
    "feature_dim",
    "weights_mb",
    "licence",
    "top1",
)


def _first(rules: tuple[tuple[str, Any], ...], name: str) -> Any:
    return next(value for pattern, value in rules if re.search(pattern, name))


def _native_size(name: str, description: str) -> int:
    found = re.search(r"(\d{3,4})x\d{3,4}", description) or re.search(r"_r?(\d{3,4})(?:_|$)", name)
    return int(found[1]) if found else _first(NATIVE, name)


def preset_rows() -> list[dict[str, Any]]:
    """Return the rows of kerashub.csv, ordered by name."""
    import keras_hub

    rows = []
    for class_name, (smallest, multiple) in CLASSES.items():
        for name, preset in getattr(keras_hub.models, class_name).presets.items():
            handle, metadata = preset["kaggle_handle"], preset["metadata"]
            if handle.split("/")[-2] != name:
                continue
            native = _native_size(name, metadata["description"])
            values = (
                name,
                class_name,
                handle.removeprefix("kaggle://"),
                native,
                smallest or native,
                multiple,
                _first(WIDTHS, name),
                round(metadata["params"] * 4e-6, 1),
                _first(LICENCES, name),
                "",  # keras-hub publishes no accuracies with its presets
            )
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return sorted(rows, key=lambda row: row["name"])


def main() -> int:
    """Write kerashub.csv beside this file."""
    rows = preset_rows()
    text = csv_text(COLUMNS, [list(row.values()) for row in rows], exact=True)
    write_atomic(FOLDER / "kerashub.csv", text.encode())
    sys.stdout.write(f"{len(rows)} presets written to {FOLDER / 'kerashub.csv'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
