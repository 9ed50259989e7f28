"""Publishing a network as a bundle, after its answers were compared with the graph's."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torchvision.models.detection import MaskRCNN

from maskserve.core.errors import ExportError, OutputError, ParameterError
from maskserve.core.manifest import Manifest
from maskserve.core.predictor import Image
from maskserve.export.graph import Precision, write_graph
from maskserve.export.parity import check_parity
from maskserve.models import InferenceNetwork, TorchEngine
from maskserve.runtime.bundle import MANIFEST_NAME, MODEL_NAME
from maskserve.runtime.image_io import read_image
from maskserve.runtime.openvino_engine import OpenVinoEngine
from maskserve.runtime.preprocess import to_graph_input
from maskserve.training import PROBE_FILE, load_run

__all__ = [
    "WrittenBundle",
    "export_run",
    "publish",
    "require_free_place",
    "scratch_bundle",
    "with_name",
    "write_bundle",
]

_TOOLS = ("maskserve", "torch", "torchvision", "lightning", "onnx", "openvino")


@dataclass(frozen=True, slots=True)
class WrittenBundle:
    """A bundle that is at its place.

    Attributes:
        manifest: With the tools that made it and the hash of the graph.
        compared: Instances in the probe photos in which graph and network were found to agree.
    """

    manifest: Manifest
    compared: int


def write_bundle(
    model: MaskRCNN,
    manifest: Manifest,
    out: Path,
    *,
    name: str | None = None,
    probes: Sequence[Image],
    precision: Precision = "f16",
    on_step: Callable[[str], None] | None = None,
) -> WrittenBundle:
    """Write a network as a bundle, once its graph is known to answer like it.

    The graph is run by the serving engine on each photo, an empty one, a very wide one and the
    photo again, and compared with the torch network; see ``export.parity``. Nothing appears at
    ``out`` before that has passed.

    Args:
        model: In evaluation mode.
        manifest: All that is known of the model; ``files`` and ``tool_versions`` are filled in.
        out: The bundle: a folder, or a file that ends in ``.zip``. A bundle that is already
            there is replaced.
        name: In the API; the manifest's by default.
        probes: RGB photos in which the model finds something.
        precision: How weights are stored; computing does not depend on it.
        on_step: Is told what is being done, in words.

    Raises:
        ParameterError: The name is not one that the API can have.
        ParityError: The graph answers differently.
        ExportError: The graph cannot be made, or ``out`` is something else than a bundle.
        OutputError: ``out`` cannot be written.
    """
    require_free_place(out)
    if name is not None:
        manifest = with_name(manifest, name)
    tell = on_step or (lambda _: None)
    with scratch_bundle(out) as folder:
        graph = folder / MODEL_NAME
        max_instances = manifest.postprocess.max_instances
        tell("Exporting the network")
        write_graph(model, graph, max_instances=max_instances, precision=precision)
        content = graph.read_bytes()
        tell(f"Comparing its answers to {len(probes)} photos")
        compared = check_parity(
            TorchEngine(InferenceNetwork(model, max_instances=max_instances)),
            OpenVinoEngine(content, precision="f32"),
            [to_graph_input(photo, manifest.preprocess) for photo in probes],
        )
        manifest = manifest.model_copy(
            update={
                "tool_versions": {tool: version(tool) for tool in _TOOLS},
                "files": {MODEL_NAME: hashlib.sha256(content).hexdigest()},
            }
        )
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        publish(folder, out)
    return WrittenBundle(manifest, compared)


def export_run(
    run: Path,
    out: Path,
    *,
    name: str | None = None,
    description: str | None = None,
    licence: str | None = None,
    metrics: Sequence[Path] = (),
    precision: Precision = "f16",
) -> Manifest:
    """Write a run's model as a bundle, through :func:`write_bundle`.

    Args:
        run: A run folder of :func:`maskserve.training.train`.
        out: The bundle: a folder, or a file that ends in ``.zip``. A bundle that is already
            there is replaced.
        name: Name in the API; the run's by default.
        description: One sentence for the API's list of models.
        licence: SPDX identifier of the weights' licence, or words.
        metrics: ``metrics.json`` files of ``maskserve evaluate`` to put into the manifest.
        precision: How weights are stored; computing does not depend on it.

    Raises:
        ParameterError: The name is not one that the API can have.
        TrainingError: ``run`` is not a finished run.
        ParityError: The graph answers differently.
        ExportError: The graph cannot be made, or ``out`` is something else than a bundle.
    """
    model, manifest = load_run(run)
    manifest = manifest.model_copy(
        update={
            "description": description or manifest.description,
            "licence": licence or manifest.licence,
            "metrics": manifest.metrics | _read_metrics(metrics),
        }
    )
    written = write_bundle(
        model,
        manifest,
        out,
        name=name,
        probes=[read_image(run / PROBE_FILE)],
        precision=precision,
    )
    return written.manifest


def with_name(manifest: Manifest, name: str) -> Manifest:
    """The manifest with another name.

    Raises:
        ParameterError: It is not one that the API can have.
    """
    try:
        return Manifest.model_validate(manifest.model_dump() | {"name": name})
    except ValidationError:
        raise ParameterError(
            f"A model cannot be called “{name}”.",
            hint="Names begin with a lower case letter or a digit; “_”, “.” and “-” may follow, "
            "64 characters in all.",
        ) from None


@contextmanager
def scratch_bundle(out: Path) -> Iterator[Path]:
    """An empty folder on the disk of ``out``, removed at the end.

    Raises:
        OutputError: ``out`` cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".bundle-", dir=out.parent)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}.") from None
    with scratch as name:
        folder = Path(name) / "bundle"
        folder.mkdir()
        yield folder


def require_free_place(out: Path) -> None:
    """Find out whether a bundle may be written there.

    Raises:
        ExportError: Something else than a bundle is there.
    """
    is_bundle = out.is_file() if out.suffix == ".zip" else (out / MANIFEST_NAME).is_file()
    if not is_bundle and out.exists() and (out.is_file() or any(out.iterdir())):
        raise ExportError(f"{out} exists and is not a bundle.", hint="Name another place.")


def _read_metrics(paths: Sequence[Path]) -> dict[str, Any]:
    """``metrics.json`` files by the name of their data set, numbers only."""
    found = {}
    for path in paths:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found[values["dataset"]] = {
                kind: {key: ap for key, ap in values[kind].items() if ap is not None}
                for kind in ("bbox", "segm")
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError(
                f"{path} is not a metrics.json of “maskserve evaluate”: {error}."
            ) from None
    return found


def publish(folder: Path, out: Path) -> None:
    """Move a complete bundle to its place; the old one leaves only when the new one is ready.

    Raises:
        OutputError: ``out`` cannot be written.
    """
    try:
        if out.suffix == ".zip":
            archive = shutil.make_archive(str(folder), "zip", folder)
            Path(archive).replace(out)
            return
        if out.exists():
            out.rename(folder.with_name("old"))
        folder.rename(out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}.") from None
