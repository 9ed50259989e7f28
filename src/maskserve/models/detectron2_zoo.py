"""Mask R-CNNs of Detectron2's model zoo: where they are, and what their configs say.

Source: https://github.com/facebookresearch/detectron2/blob/main/MODEL_ZOO.md
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path

import torch

from maskserve.core.categories import nearest_name
from maskserve.core.errors import DownloadError, OutputError, ParameterError
from maskserve.core.manifest import Preprocess
from maskserve.datasets.download import OnProgress, download
from maskserve.models.resnet import ResNetDesign

__all__ = ["ZOO", "ZooModel", "base_design", "base_preprocess", "fetch_zoo_model", "find_zoo_model"]

_HOST = "https://dl.fbaipublicfiles.com/detectron2"
_SCHEME = "detectron2://"
_MAX_BYTES = 600_000_000


def base_design(depth: int) -> ResNetDesign:
    """The network of the zoo's ``Base-RCNN-FPN.yaml`` with a ResNet of 50, 101 or 152 layers."""
    return ResNetDesign(
        depth=152 if depth == 152 else 101 if depth == 101 else 50,
        stride_in_1x1=True,
        box_sampling=0,
        box_aligned=True,
        mask_sampling=0,
        mask_aligned=True,
    )


def base_preprocess() -> Preprocess:
    """Detectron2's own defaults: BGR, of which the mean is taken, and 800 px."""
    return Preprocess(
        channel_order="bgr",
        short_side_px=800,
        max_side_px=1333,
        mean=(103.53, 116.28, 123.675),
        std=(1.0, 1.0, 1.0),
    )


@dataclass(frozen=True, slots=True)
class ZooModel:
    """A published model.

    Attributes:
        name: As in ``detectron2://NAME``.
        file: Its number and file name. The name ends with the first digits of the file's SHA-256.
        design: Its network.
        preprocess: What photos go through before it.
    """

    name: str
    file: str
    design: ResNetDesign
    preprocess: Preprocess

    @property
    def url(self) -> str:
        return f"{_HOST}/{self.name}/{self.file}"

    @property
    def digits(self) -> str:
        """The first digits of the SHA-256."""
        return Path(self.file).stem.rpartition("_")[2]


_MODELS = (
    ZooModel(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
        "137260431/model_final_a54504.pkl",
        base_design(50),
        base_preprocess(),
    ),
    ZooModel(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x",
        "137849600/model_final_f10217.pkl",
        base_design(50),
        base_preprocess(),
    ),
    ZooModel(
        "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x",
        "138205316/model_final_a3ec72.pkl",
        base_design(101),
        base_preprocess(),
    ),
    ZooModel(
        "COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x",
        "139653917/model_final_2d9806.pkl",
        replace(base_design(101), groups=32, group_width=8, stride_in_1x1=False),
        base_preprocess().model_copy(update={"std": (57.375, 57.12, 58.395)}),
    ),
)

ZOO = {model.name: model for model in _MODELS}
"""By name."""


def find_zoo_model(start: str) -> ZooModel | None:
    """The model that ``detectron2://NAME`` means; None for anything that does not begin so.

    Raises:
        ParameterError: There is none of this name.
    """
    if not start.startswith(_SCHEME):
        return None
    name = start.removeprefix(_SCHEME).strip("/")
    found = ZOO.get(name) or next((m for m in _MODELS if name == f"{m.name}/{m.file}"), None)
    if found is None:
        nearest = nearest_name(name, ZOO)
        guess = f"Did you mean “{_SCHEME}{nearest}”? " if nearest else ""
        raise ParameterError(
            f"“{start}” is not a Mask R-CNN of Detectron2's zoo that is supported.",
            hint=f"{guess}Known: {', '.join(ZOO)}.",
        )
    return found


def fetch_zoo_model(model: ZooModel, *, on_progress: OnProgress | None = None) -> Path:
    """The checkpoint of a model, downloaded once into torch's cache.

    If the download is interrupted the next call goes on where this one stopped.

    Raises:
        DownloadError: It cannot be had, or what came is another file.
        ParameterError: The file in the cache is another one.
        OutputError: The cache cannot be written to.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(model.file).name
    if path.is_file():
        if not _is_published(path, model):
            raise ParameterError(
                f"{path} is not the published file: its SHA-256 does not begin with "
                f"{model.digits}.",
                hint="Remove it; it will be downloaded again.",
            )
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(model, path, on_progress)
    except DownloadError as error:
        hint = f"{error.hint} Without internet, put {path.name} into {folder}."
        raise DownloadError(error.message, hint=hint) from None
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to: {error.strerror or error}.") from None
    return path


def _download(model: ZooModel, path: Path, on_progress: OnProgress | None) -> None:
    part = path.with_name(f"{path.name}.part")
    download(model.url, part, max_bytes=_MAX_BYTES, on_progress=on_progress)
    if not _is_published(part, model):
        part.unlink()
        raise DownloadError(
            f"What {model.url} delivered is not the published file: its SHA-256 does not begin "
            f"with {model.digits}. It was deleted.",
            hint="Try again; if it stays like that, the file was replaced.",
        )
    part.replace(path)


def _is_published(path: Path, model: ZooModel) -> bool:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest().startswith(model.digits)
