"""One side of the comparison with SAHI; benchmarks.peers calls it in a process of each side's environment."""

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

import inference
from src.common.files import companion, write_json
from src.config.flags import build
from src.config.settings import InferenceConfig
from src.data.classes import to_json
from src.data.id_map import write_id_map
from src.data.images_to_predict import TestImage, find_test_images
from src.engine.prediction import Predictor, predict_images
from src.evaluation.results import result_entries, write_results
from src.geometry.instances import Instance, tight


class TimedNetwork(nn.Module):
    """A network that adds up the seconds that it takes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seconds = network, 0.0
        self.fill = network.fill

    def forward(self, tiles: Tensor) -> list[dict[str, Tensor]]:
        """The detections of some tiles."""
        started = time.perf_counter()
        found: list[dict[str, Tensor]] = self.network(tiles)
        self.seconds += time.perf_counter() - started
        return found


def main(job: dict[str, Any]) -> None:
    """Predict all images and print what it took."""
    config = build(
        InferenceConfig, {"ckpt": [job["ckpt"]], "score_thresh": job["score_thresh"], "amp": "off", "device": "cpu"}
    )
    predictor, checkpoint = inference.load_predictor(config, torch.device("cpu"))
    network = TimedNetwork(predictor.models[0])
    predictor = Predictor([network], predictor.device, None, predictor.image, predictor.tile_size, predictor.settings)
    images = find_test_images(job["test_dir"], job["id_map"])
    sides = {"ours": predict_ours, "sahi": predict_with_sahi}
    entries: list[dict[str, Any]] = []
    started = time.perf_counter()
    for image, cells in sides[job["side"]](predictor, images):
        entries += result_entries(image.entry.id, cells, image.entry.height, image.entry.width)
    seconds = time.perf_counter() - started
    output = Path(job["output"])
    write_results(output, entries)
    write_id_map(companion(output, "id-map"), [image.entry for image in images])
    write_json(companion(output, "classes"), to_json(checkpoint.classes))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"network s": network.seconds, "all else s": seconds - network.seconds, "peak memory GB": peak}))


def predict_ours(predictor: Predictor, images: list[TestImage]) -> Iterator[tuple[TestImage, list[Instance]]]:
    """Each image with its cells, as inference.py finds them."""
    for image, _, cells in predict_images(predictor, images):
        yield image, cells


def predict_with_sahi(predictor: Predictor, images: list[TestImage]) -> Iterator[tuple[TestImage, list[Instance]]]:
    """Each image with its cells, as SAHI makes them of the network's detections in its slices."""
    from sahi.models.torchvision import TorchVisionDetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.utils.cv import get_coco_segmentation_from_bool_mask

    class SahiModel(TorchVisionDetectionModel):
        """The network as SAHI calls it."""

        def perform_inference(self, image: np.ndarray, image_size: int | None = None) -> None:
            """Detections in a slice, with masks as large as the slice, as torchvision's Mask R-CNN gives them.

            Those whose mask makes no polygon are left out, since SAHI ends with an error at the first of them.
            """
            tile = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
            with torch.inference_mode():
                (found,) = self.model(tile)
            masks = paste_masks_in_image(found["masks"][:, None], found["mask_rois"], image.shape[:2])[:, 0]
            drawn = torch.tensor([bool(get_coco_segmentation_from_bool_mask(mask > 0.5)) for mask in masks.numpy()])
            self._original_predictions = [
                {name: values[drawn.bool()] for name, values in {**found, "masks": masks}.items()}
            ]

    size, overlap = predictor.tile_size, predictor.settings.predict_overlap / predictor.tile_size
    names = {str(number): str(number) for number in range(1000)}
    model = SahiModel(model=predictor.models[0], confidence_threshold=0.0, device="cpu", category_mapping=names)
    for image in images:
        result = get_sliced_prediction(
            predictor.read(image.image, image.orientation),
            model,
            size,
            size,
            overlap,
            overlap,
            perform_standard_pred=False,
            verbose=0,
        )
        cells = [
            tight(one.category.id, float(one.score.value), 0, 0, one.mask.bool_mask)
            for one in result.object_prediction_list
            if one.mask is not None
        ]
        yield image, [cell for cell in cells if cell is not None]
