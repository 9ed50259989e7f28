from __future__ import annotations

import numpy as np
import torch
from torch import nn

from maskserve.core import Preprocess
from maskserve.models import InferenceNetwork, build_model
from maskserve.training.norms import set_statistics


def test_statistics_are_those_of_the_photos_and_the_model_answers_as_before() -> None:
    torch.manual_seed(0)
    model = build_model("mobilenet_v2", classes=1, preprocess=Preprocess())
    norm = model.backbone.fpn.layer_blocks[0][0][1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    photos = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    pixels = (torch.from_numpy(photos).permute(0, 3, 1, 2) - 120) / 60
    before = model.eval().backbone(pixels)["0"]

    set_statistics(model, photos)

    torch.testing.assert_close(model.backbone(pixels)["0"], before, rtol=1e-3, atol=1e-3)
    seen = []
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network = InferenceNetwork(model)
    for photo in photos:
        network(torch.from_numpy(photo)[None], torch.ones(1))
    features = torch.cat(seen)
    torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    variance = features.var((0, 2, 3), correction=0)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-3, atol=1e-4)
    # A batch of the same photos is normalised alike in training.
    torch.testing.assert_close(norm.train()(features), norm.eval()(features), rtol=1e-2, atol=1e-2)
