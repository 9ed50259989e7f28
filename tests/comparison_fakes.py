"""A comparison whose every number is known."""

from __future__ import annotations

from collections.abc import Sequence

from maskserve.evaluation.bootstrap import Interval
from maskserve.evaluation.citations import CitedModel
from maskserve.evaluation.comparison import ComparedModel, Comparison, Estimate
from maskserve.evaluation.measures import MEASURES

CITED = CitedModel("Theirs", "https://example.org", "their photos", {"mask_AP": 77.8})


def make_model(
    name: str,
    *,
    mask_ap: float = 70,
    change: Interval | None = None,
    network_ms: float = 50,
) -> ComparedModel:
    """All measures are 1 but for those that are given; the change lies amid its interval."""
    estimates = {measure.key: Estimate(1.0, change=1.0) for measure in MEASURES}
    estimates["mask_AP"] = Estimate(
        mask_ap,
        Interval(mask_ap - 5, mask_ap + 5),
        sum(change) / 2 if change else 0.0,
        change or Interval(0, 0),
    )
    estimates["mask_APs"] = Estimate(None)
    estimates["network_ms"] = Estimate(
        network_ms, Interval(network_ms - 1, network_ms + 2), 1.5, Interval(1.4, 1.6)
    )
    estimates["total_ms"] = Estimate(1234.5, Interval(1200, 1300), 12.3, Interval(11, 14))
    return ComparedModel(name, "1", "mobilenet_v2", (480, 640), "bf16", 2, estimates)


def make_comparison(
    models: Sequence[ComparedModel], *, cited: Sequence[CitedModel] = ()
) -> Comparison:
    return Comparison(
        dataset_name="toys val",
        photo_count=13,
        size_counts=(1, 20, 29),
        models=tuple(models),
        cited=tuple(cited),
        machine="a fast machine",
        load=0.25,
        software="OpenVINO 1",
        rounds=30,
        resamples=1000,
        seed=0,
    )
