"""The val images of a training: predicted as a submission would, scored, and logged."""

from collections import Counter
from typing import Any

from src.common.progress import ProgressBar, say
from src.engine.prediction import Predictor, predict_images, warnings_on_limits
from src.engine.run import TrainingRun
from src.evaluation.ground_truth import ImageTruth
from src.evaluation.results import result_entries
from src.evaluation.scores import format_score, score
from src.geometry.instances import confident
from src.reporting.draw import draw_outlines

PICTURED = 3  # val images that TensorBoard shows


def predict_val(run: TrainingRun) -> list[dict[str, Any]]:
    """The result entries of all val images, each predicted by one of the processes; their ids are the truth's."""
    config, records, world = run.config, run.data.val, run.world
    model = run.state.predicting_model.eval()
    predictor = Predictor([model], run.device, run.amp, config.image, config.tiles.tile_size, config.predict)
    mine = records[world.rank :: world.size]
    bar = ProgressBar(mine, "validate", hidden=not world.is_main)
    ids = {record.name: image_id for image_id, record in enumerate(records, start=1)}
    entries = []
    for record, image, instances in predict_images(predictor, bar):
        image_id = ids[record.name]
        entries += result_entries(image_id, instances, *image.shape[:2])
        if image_id <= PICTURED:
            drawn = confident(instances, config.predict.min_score, *image.shape[:2])
            picture = draw_outlines(image, drawn, run.data.classes)
            run.log.picture(f"val/{record.name}", picture, run.state.progress.step)
    reached: Counter[str] = sum(world.gather(predictor.limits_reached()), Counter())
    for flag, warning in warnings_on_limits(reached).items():
        run.warn_once(flag, warning)
    return [entry for share in world.gather(entries) for entry in share]


def score_val(run: TrainingRun, truth: list[ImageTruth], entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Score the entries of the val images against the true cells, log and print the scores; in the main process.

    Returns:
        The scores, as :func:`src.evaluation.scores.score` gives them; AP50 among the uncapped ones chooses the best
        checkpoint.
    """
    classes, progress = run.data.classes, run.state.progress
    scores = score(truth, entries, classes)
    capped, uncapped = scores["at_100"], scores["uncapped"]
    figures = {"AP50": uncapped["AP50"], "AP": uncapped["AP"], "AP50_at_100": capped["AP50"], "scores": scores}
    run.log.write("val", progress, **figures)
    per_class = ", ".join(f"{c.name} {format_score(uncapped['per_class'][str(c.id)]['AP50'])}" for c in classes)
    say(
        f"epoch {progress.epoch}, step {progress.step}, {progress.seconds / 60:.1f} min: "
        f"AP50 {format_score(uncapped['AP50'])} ({per_class}), AP {format_score(uncapped['AP'])}, "
        f"AP50 at 100 detections {format_score(capped['AP50'])}"
    )
    return scores
