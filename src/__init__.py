"""The packages below the scripts, and the commands ``python -m src.NAME``.

Imports run one way (``tests/test_rooms.py``)::

    common ← config, geometry ← data ← evaluation, synthetic ← formats, reporting, network
    ← slides ← inspection, engine ← commands
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Where modules went that notebooks may still import by their old names.
MOVED = {
    **{f"src.{name}": f"src.common.{name}" for name in ("errors", "files")},
    **{f"src.{name}": f"src.config.{name}" for name in ("command", "settings")},
    **{
        f"src.{name}": f"src.geometry.{name}"
        for name in ("instances", "tiles", "detections", "views", "stitch", "polygons")
    },
    **{
        f"src.{name}": f"src.data.{name}"
        for name in ("tiff", "tiff_streams", "records", "classes", "stain", "cache", "training_data")
    },
    **{f"src.{name}": f"src.evaluation.{name}" for name in ("rle", "ground_truth", "panoptic", "centroids")},
    **{f"src.{name}": f"src.formats.{name}" for name in ("importers", "imported", "exporters")},
    **{f"src.{name}": f"src.inspection.{name}" for name in ("facts", "advice", "manifest")},
    **{f"src.{name}": f"src.reporting.{name}" for name in ("draw", "curves", "viewers")},
    "src.split": "src.data.splits",
    "src.coco": "src.evaluation.results",
    "src.outcomes": "src.evaluation.errors_by_cause",
    "src.partial": "src.evaluation.partial_results",
    "src.check_page": "src.inspection.page",
    "src.report_plots": "src.reporting.plots",
    "src.page": "src.reporting.html",
    "src.tissue": "src.synthetic.tissue",
    "engine": "src.engine",
    **{
        f"src.engine.{name}": f"src.network.{name}"
        for name in ("heads", "rpn", "pyramid", "sampling", "targets", "norms", "weights")
    },
}


class MovedModules(MetaPathFinder):
    """Tells the new name of a module that is imported by its old one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by Python for each import that nothing has loaded yet.

        Raises:
            ModuleNotFoundError: with the new name.
        """
        if fullname in MOVED:
            raise ModuleNotFoundError(f"{fullname} is now {MOVED[fullname]}", name=fullname)
        return None


sys.meta_path.append(MovedModules())
