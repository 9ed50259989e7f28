"""From a training run to a bundle that serves: graph, comparison, manifest."""

from maskserve.export.bundle import export_run
from maskserve.export.graph import Precision

__all__ = ["Precision", "export_run"]
