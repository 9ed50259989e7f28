from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from maskserve.core import Preprocess
from maskserve.core.errors import (
    BundleMissingError,
    DownloadError,
    ParameterError,
    UnknownModelError,
)
from maskserve.core.manifest import Postprocess
from maskserve.models import (
    InferenceNetwork,
    ResNetDesign,
    ResNetMaskRcnn,
    TorchEngine,
    build_model,
    initialise,
    to_detectron2,
)
from maskserve.models import detectron2_zoo as zoo
from maskserve.models.mask_rcnn import LightDesign
from maskserve.models.start import read_start
from maskserve.runtime.bundle import Bundle, find_bundle, read_bundle, shipped_bundles
from maskserve.runtime.openvino_engine import OpenVinoEngine

NARROW = ResNetDesign(
    stem_channels=8,
    first_channels=16,
    group_width=4,
    stride_in_1x1=True,
    box_aligned=True,
    fpn_channels=8,
    rpn_channels=(8,),
    box_features=(16, 16),
    mask_channels=(8, 8, 8, 8),
    mask_features=8,
)
BGR = Preprocess(channel_order="bgr", mean=(103.5, 116.0, 123.5), std=(1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def donor() -> ResNetMaskRcnn:
    torch.manual_seed(3)
    return ResNetMaskRcnn(NARROW, 2, BGR)


@pytest.fixture
def checkpoint(donor: ResNetMaskRcnn, tmp_path: Path) -> Path:
    """A checkpoint of Detectron2 with its config beside it."""
    state, config = to_detectron2(donor, preprocess=BGR, postprocess=Postprocess())
    torch.save({"model": state}, tmp_path / "model_final.pth")
    (tmp_path / "config.yaml").write_text(config)
    return tmp_path / "model_final.pth"


def test_the_config_beside_a_checkpoint_says_what_it_needs(checkpoint: Path) -> None:
    demands = read_start(str(checkpoint)).demands
    assert demands is not None
    assert (demands.model, demands.design) == ("resnet50", NARROW)
    assert demands.preprocess.channel_order == "bgr"
    assert demands.preprocess.mean == BGR.mean
    assert demands.known_from.endswith("config.yaml")


def test_a_faster_rcnn_is_a_start_too(checkpoint: Path) -> None:
    config = checkpoint.with_name("config.yaml")
    config.write_text(config.read_text().replace("MASK_ON: true", "MASK_ON: false"))
    assert "MASK_ON: false" in config.read_text()
    assert read_start(str(checkpoint)).demands is not None


def test_without_a_config_detectron2s_defaults_hold(checkpoint: Path) -> None:
    checkpoint.with_name("config.yaml").unlink()
    demands = read_start(str(checkpoint)).demands
    assert demands is not None
    assert demands.design == zoo.base_design(50)
    assert demands.preprocess.channel_order == "bgr"
    assert "defaults" in demands.known_from


def test_heads_that_do_not_fit_are_made_anew_and_named(
    donor: ResNetMaskRcnn, checkpoint: Path
) -> None:
    model = build_model("resnet50", classes=5, preprocess=BGR, design=NARROW)
    told = initialise(model, "resnet50", str(checkpoint))
    made_anew = told.partition("made anew: ")[2].split(", ")
    assert {name.rpartition(".")[0] for name in made_anew} == {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_predictor.mask_fcn_logits",
    }
    loaded, given = model.state_dict(), donor.state_dict()
    assert all(
        torch.equal(loaded[name], given[name])
        for name in given
        if name not in made_anew and not name.endswith("num_batches_tracked")
    )


def test_plain_weights_ask_for_nothing(tmp_path: Path) -> None:
    torch.save({"stem.weight": torch.zeros(2)}, tmp_path / "stem.pth")
    start = read_start(str(tmp_path / "stem.pth"))
    assert start.demands is None
    assert list(start.state) == ["stem.weight"]


class TestBundle:
    def test_asks_for_its_network_and_pixels(self) -> None:
        demands = read_start("balloon-fast").demands
        assert demands is not None
        assert demands.model == "mobilenet_v2"
        assert isinstance(demands.design, LightDesign)
        assert demands.design.first_stride == 8
        assert demands.preprocess.mean == (127.5, 127.5, 127.5)

    @pytest.mark.parametrize("name", sorted(shipped_bundles()))
    def test_its_weights_answer_as_it_does(self, name: str) -> None:
        bundle = read_bundle(find_bundle(name))
        start = read_start(name)
        assert start.demands is not None
        model = build_model(
            start.demands.model,
            classes=len(bundle.manifest.classes),
            preprocess=start.demands.preprocess,
            design=start.demands.design,
        )
        assert "made anew" not in initialise(model, start.demands.model, start)
        photo = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        found = TorchEngine(InferenceNetwork(model)).infer(photo, min_score=0.0)
        expected = OpenVinoEngine(bundle.model, precision="f32").infer(photo, min_score=0.0)
        assert len(found.scores) > 0
        np.testing.assert_allclose(found.scores[:5], expected.scores[:5], atol=1e-3)
        np.testing.assert_allclose(found.boxes_xyxy[:5], expected.boxes_xyxy[:5], atol=0.05)
        np.testing.assert_allclose(found.mask_grids[:5], expected.mask_grids[:5], atol=1e-3)

    def test_one_that_was_rounded_to_integers_is_refused(self, tmp_path: Path) -> None:
        bundle = read_bundle(find_bundle("balloon-fast"))
        graph = onnx.load_from_string(bundle.model)
        for tensor in graph.graph.initializer:
            if tensor.name.startswith("model.roi_heads.mask_head"):
                tensor.name += ".rounded"
        path = _rewritten(bundle, graph.SerializeToString(), tmp_path)
        with pytest.raises(ParameterError, match=r"cannot start from.*quantised since"):
            read_start(str(path))

    def test_one_of_another_origin_is_refused(self, tmp_path: Path) -> None:
        bundle = read_bundle(find_bundle("balloon-fast"))
        provenance = bundle.manifest.provenance.model_copy(update={"settings": {}})
        manifest = bundle.manifest.model_copy(update={"provenance": provenance})
        path = _rewritten(replace(bundle, manifest=manifest), bundle.model, tmp_path)
        with pytest.raises(ParameterError, match=r"only those of light models"):
            read_start(str(path))

    def test_an_unknown_name_tells_the_nearest(self) -> None:
        with pytest.raises(UnknownModelError) as caught:
            read_start("baloon")
        assert "Did you mean “balloon”" in (caught.value.hint or "")

    def test_a_run_is_told_from_one(self, tmp_path: Path) -> None:
        (tmp_path / "weights.safetensors").touch()
        with pytest.raises(ParameterError, match=r"is a run.*Start from .*weights.safetensors"):
            read_start(str(tmp_path))

    def test_a_folder_that_is_none_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BundleMissingError, match=r"manifest\.json"):
            read_start(str(tmp_path))


def _rewritten(bundle: Bundle, model: bytes, folder: Path) -> Path:
    files = {"model.onnx": sha256(model).hexdigest()}
    manifest = bundle.manifest.model_copy(update={"files": files})
    (folder / "model.onnx").write_bytes(model)
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def test_the_zoo_is_that_of_its_documentation() -> None:
    found = {name.rpartition("/")[2]: (m.url, m.digits) for name, m in zoo.ZOO.items()}
    assert found["mask_rcnn_R_50_FPN_3x"] == (
        "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation/"
        "mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl",
        "f10217",
    )
    assert {model.design.name for model in zoo.ZOO.values()} == {
        "resnet50",
        "resnet101",
        "resnext101_32x8d",
    }


def test_an_unknown_model_of_the_zoo_names_the_nearest() -> None:
    with pytest.raises(ParameterError, match=r"Did you mean.*mask_rcnn_R_50_FPN_3x”"):
        read_start("detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_x3")


class TestFetching:
    @dataclass
    class Site:
        content: bytes
        requests: int = 0

    @pytest.fixture
    def site(
        self, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Site]:
        site = self.Site(checkpoint.read_bytes())

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(site.content)))
                self.end_headers()
                self.wfile.write(site.content)

            def log_message(self, *arguments: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            monkeypatch.setattr(zoo, "_HOST", f"http://127.0.0.1:{server.server_address[1]}")
            monkeypatch.setenv("no_proxy", "*")
            monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
            yield site
            server.shutdown()
            thread.join()

    @pytest.fixture
    def published(self, checkpoint: Path) -> zoo.ZooModel:
        digits = sha256(checkpoint.read_bytes()).hexdigest()[:6]
        # As .pth, which the checkpoint is; the zoo's own are .pkl.
        model = next(iter(zoo.ZOO.values()))
        return replace(model, name="toys", file=f"1/model_final_{digits}.pth", design=NARROW)

    def test_it_is_fetched_once_and_checked(
        self, site: Site, published: zoo.ZooModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(zoo.ZOO, "toys", published)
        steps: list[tuple[int, int | None]] = []
        for _ in range(2):
            start = read_start("detectron2://toys", on_progress=lambda *step: steps.append(step))
        assert site.requests == 1
        assert steps[-1] == (len(site.content), len(site.content))
        assert start.demands is not None
        assert start.demands.design == NARROW
        assert "roi_heads.box_predictor.cls_score.weight" in start.state

    def test_another_file_is_refused_and_deleted(
        self, site: Site, published: zoo.ZooModel, tmp_path: Path
    ) -> None:
        site.content = b"<html>Please log in</html>"
        with pytest.raises(DownloadError, match=r"not the published file.*deleted"):
            zoo.fetch_zoo_model(published)
        assert list((tmp_path / "cache" / "hub" / "checkpoints").iterdir()) == []

    def test_a_file_that_was_put_there_is_checked(
        self, site: Site, published: zoo.ZooModel, tmp_path: Path
    ) -> None:
        folder = tmp_path / "cache" / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / Path(published.file).name).write_bytes(b"something else")
        with pytest.raises(ParameterError, match=r"not the published file.*Remove it"):
            zoo.fetch_zoo_model(published)
        assert site.requests == 0

    def test_without_internet_it_says_where_the_file_belongs(
        self, published: zoo.ZooModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(zoo, "_HOST", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
        with pytest.raises(DownloadError, match=r"cannot be reached.*put model_final_.* into"):
            zoo.fetch_zoo_model(published)
