"""Publishing a training run as a checkpoint and a config of Detectron2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from maskserve.core.errors import ExportError, OutputError
from maskserve.models import ResNetMaskRcnn
from maskserve.models.detectron2 import CHECKPOINT_NAME, METADATA_NAME, to_detectron2
from maskserve.runtime.files import replacing, write_file
from maskserve.training import load_run

__all__ = ["CONFIG_NAME", "export_detectron2"]

CONFIG_NAME = "config.yaml"

_HEADER = """\
# {name}, trained with maskserve. Classes in this order: {classes}.
# To use it in Detectron2:
#   cfg = get_cfg()
#   cfg.merge_from_file("FOLDER/{config}")
#   cfg.MODEL.WEIGHTS = "FOLDER/{checkpoint}"
#   cfg.MODEL.DEVICE = "cpu"  # without a GPU
#   DefaultPredictor(cfg)(cv2.imread("photo.jpg"))
"""


def export_detectron2(run: Path, out: Path) -> None:
    """Write ``model_final.pth``, ``config.yaml`` and ``metadata.json`` for Detectron2.

    The config comes last: a folder that has one is complete.

    Args:
        run: A run folder of :func:`maskserve.training.train`, of a ResNet.
        out: The folder to write; new, empty, or one of an earlier export, which is replaced.

    Raises:
        TrainingError: ``run`` is not a finished run.
        ExportError: Its model is none that Detectron2 has, or ``out`` holds something else.
        OutputError: A file cannot be written.
    """
    is_model = (out / CONFIG_NAME).is_file()
    if not is_model and out.exists() and (out.is_file() or any(out.iterdir())):
        raise ExportError(f"{out} exists and is no model for Detectron2.", hint="Name another one.")
    model, manifest = load_run(run)
    if not isinstance(model, ResNetMaskRcnn):
        raise ExportError(
            f"{run} holds a {manifest.backbone}, which Detectron2 does not have.",
            hint="Train a resnet50 or resnet101 for Detectron2.",
        )
    state, config = to_detectron2(
        model, preprocess=manifest.preprocess, postprocess=manifest.postprocess
    )
    try:
        (out / CONFIG_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}.") from None
    with replacing(out / CHECKPOINT_NAME) as temporary:
        torch.save({"model": state}, temporary)
    metadata = {"thing_classes": list(manifest.classes)}
    write_file(out / METADATA_NAME, json.dumps(metadata, ensure_ascii=False, indent=2) + "\n")
    write_file(out / CONFIG_NAME, _header(manifest.name, manifest.classes) + config)


def _header(name: str, classes: Sequence[str]) -> str:
    return _HEADER.format(
        name=name, classes=", ".join(classes), config=CONFIG_NAME, checkpoint=CHECKPOINT_NAME
    )
