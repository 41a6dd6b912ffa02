"""What the steps of stitching share: when detections are the same object, and which objects stay."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StitchSettings:
    """When detections of two tiles are the same object. Thresholds are in [0, 1]."""

    iou_threshold: float = 0.5
    """Suppression: an object is dropped where its mask IoU with a kept one reaches this."""
    containment_threshold: float = 0.8
    """Suppression: ... or where the shared part of the smaller of the two masks reaches this."""
    agreement_threshold: float = 0.4
    """Linking: mask IoU, within what both tiles see, from which two detections are one object. Also the part of a cut
    object that a kept one must cover to suppress it."""
    match_distance: float = 6.5
    """Linking: largest distance in px of box centres at which detections that share a pixel, each the only match of the
    other, are one object all the same: two detections of a small cell, each a little off, overlap little."""
    one_class_per_cell: bool = False
    """Link and suppress across classes: an object has the class of its best detection, and no second one."""
    edge_margin: int = 4
    """Distance in px from an inner edge up to which a box counts as cut; also how far a detection may be off."""
    band: int = 2048
    """Chains: what would join objects over three bands of this many px, in rows or in columns, does not count between
    bands (:mod:`src.geometry.chains`)."""
