"""From a network to a bundle that serves: graph, comparison, manifest; and to Detectron2."""

from maskserve.export.bundle import WrittenBundle, export_run, write_bundle
from maskserve.export.detectron2 import export_detectron2
from maskserve.export.graph import Precision
from maskserve.export.imported import (
    Imported,
    ImportOptions,
    import_detectron2,
    import_torchvision,
)

__all__ = [
    "ImportOptions",
    "Imported",
    "Precision",
    "WrittenBundle",
    "export_detectron2",
    "export_run",
    "import_detectron2",
    "import_torchvision",
    "write_bundle",
]
