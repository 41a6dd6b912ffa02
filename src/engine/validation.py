"""The val images of a run: predicted as a submission would, scored, and said."""

from typing import Any

import numpy as np
from tqdm import tqdm

from src.data.tiff import read_rgb
from src.engine.prediction import Predictor, predict_images
from src.engine.run import Run
from src.engine.run_log import RunLog
from src.evaluation.results import result_entries
from src.evaluation.scores import format_score, score
from src.geometry.instances import Instance
from src.reporting.draw import SURE, outline

PICTURED = 3  # val images that TensorBoard shows


def predict_val(training: Run, log: RunLog | None) -> list[dict[str, Any]]:
    """The result entries of all val images, each predicted by one of the processes; their ids are the truth's."""
    config, data, step = training.config, training.data, training.state.progress.step
    model = training.state.predicting_model.eval()
    predictor = Predictor(
        [model], training.device, training.amp, config.image.scale, config.tiles.tile_size, config.predict
    )
    mine = range(training.world.rank, len(data.val), training.world.size)

    def read(index: int) -> np.ndarray:
        return read_rgb(data.val[index].image, config.image.intensity, data.swap_channels, config.image.max_pixels)

    def finish(index: int, image: np.ndarray, instances: list[Instance]) -> list[dict[str, Any]]:
        if log and index < PICTURED:
            sure = [instance for instance in instances if instance.score >= SURE]
            log.picture(f"val/{data.val[index].name}", outline(image, sure, data.classes), step)
        return result_entries(index + 1, instances, *image.shape[:2])

    bar = tqdm(mine, "validate", unit="image", leave=False, disable=None if log else True)
    entries = [entry for found in predict_images(predictor, bar, read, finish) for entry in found]
    return [entry for share in training.world.gather(entries) for entry in share]


def report(training: Run, entries: list[dict[str, Any]], log: RunLog) -> float:
    """Score the val entries, log and say the figures; the AP50 (uncapped) that chooses the best checkpoint."""
    data, progress = training.data, training.state.progress
    scores = score(training.truth, entries, data.classes)
    capped, uncapped = scores["at_100"], scores["uncapped"]
    ap50 = uncapped["AP50"]
    figures = {"AP50": ap50, "AP": uncapped["AP"], "AP50_at_100": capped["AP50"], "scores": scores}
    log.write("val", progress.step, progress.epoch, progress.seconds, **figures)
    per_class = ", ".join(f"{c.name} {format_score(uncapped['per_class'][str(c.id)]['AP50'])}" for c in data.classes)
    training.say(
        f"epoch {progress.epoch}, step {progress.step}, {progress.seconds / 60:.1f} min: AP50 {format_score(ap50)} "
        f"({per_class}), AP {format_score(uncapped['AP'])}, AP50 at 100 detections {format_score(capped['AP50'])}"
    )
    return ap50 or 0.0
