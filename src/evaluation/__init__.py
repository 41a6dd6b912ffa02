"""Results and their scores.

- ``rle``: COCO's run-length encoding of cropped masks
- ``results``: the results file and the submission
- ``probabilities``: class probabilities beside the results
- ``result_settings``: the score from which cells count, beside the results
- ``partial_results``: results of an interrupted prediction
- ``categories``: which of COCO's categories is which class
- ``crowds``: COCO's crowd annotations
- ``image_truth``: the true cells of one image
- ``ground_truth``: the true cells, from masks or COCO
- ``coco_truth``: the true cells of a COCO file
- ``coco_polygons``: which polygons of COCO files can be drawn
- ``segmentations``: COCO's segmentations, drawn or checked
- ``scored``: results with the ground truth that they are scored against
- ``average_precision``: AP as COCO defines it
- ``label_overlaps``: both sides of an image painted, and the pixels that they share
- ``panoptic``: panoptic quality, PQ, mPQ and mPQ+
- ``overlap_scores``: AJI, AJI+ and Dice
- ``f1_by_iou``: F1 and accuracy by the IoU that a pair needs
- ``centroids``: F1 by centroids
- ``assignment``: pairs, one to one, at the least cost
- ``weighted``: sums and means over images that count several times
- ``measured``: what each image adds to the scores
- ``scores``: all figures together
- ``bootstrap``: intervals of figures
- ``score_tables``: scores as text
- ``errors_by_cause``: why cells were missed and detections are false
"""
