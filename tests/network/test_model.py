"""The network against torchvision's own, and the ways its weights are loaded."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models import detection, resnet18
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss

from inference import restore_model
from model import anchor_sizes, build_model
from src.common.errors import InputError
from src.config.settings import ModelSettings, PredictSettings, TrainConfig
from src.data.classes import HOMEWORK_CLASSES, UNKNOWN_CLASS
from src.engine.checkpoint import Checkpoint
from src.geometry.anchors import auto_anchors
from src.network.heads import box_loss, classifier_loss, enlarge, mask_loss, supposed_labels
from src.network.targets import sample_mask_targets
from src.network.weights import count_parameters, load_matching, norms_of, read_weights, resolve

pytestmark = pytest.mark.torch
TINY = ModelSettings(
    backbone="resnet18", weights="none", anchors="8,16,32,64,128", fpn_channels=16, box_head_dim=16,
    mask_head_channels=8, mask_head_layers=1, rois_per_tile=32, proposals=50,
)  # fmt: skip


def cells(count: int, size: int = 96, seed: int = 0) -> dict[str, torch.Tensor]:
    """A target of random ellipses in two layers; later ones of a layer cover earlier ones."""
    random = torch.Generator().manual_seed(seed)
    label_map = torch.zeros(2, size, size, dtype=torch.int32)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for index in range(count):
        y, x, a, b = (torch.rand(4, generator=random) * torch.tensor([size, size, 14, 14]) + 1).tolist()
        label_map[index % 2][((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 <= 1] = index + 1
    ids = [index + 1 for index in range(count) if (label_map[index % 2] == index + 1).any()]
    boxes = []
    for label in ids:
        where = (label_map[(label - 1) % 2] == label).nonzero()
        (top, left), (bottom, right) = where.amin(0).tolist(), where.amax(0).tolist()
        boxes.append([left, top, right + 1, bottom + 1])
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([1 + label % 2 for label in ids], dtype=torch.int64),
        "label_map": label_map,
        "layers": torch.tensor([(label - 1) % 2 for label in ids], dtype=torch.int64),
        "ids": torch.tensor(ids, dtype=torch.int64),
    }


def dense_masks(target: dict[str, torch.Tensor]) -> torch.Tensor:
    """``(N, H, W)`` masks, as torchvision wants them."""
    return (target["label_map"][target["layers"]] == target["ids"][:, None, None]).to(torch.uint8)


def jittered(target: dict[str, torch.Tensor], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """RoIs around the objects, some reaching out of the tile, and the object of each."""
    match = torch.randint(len(target["ids"]), (40,), generator=torch.Generator().manual_seed(seed))
    noise = torch.randn(40, 4, generator=torch.Generator().manual_seed(seed + 1)) * 5
    boxes = target["boxes"][match] + noise
    low, high = torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])
    return torch.cat([low, high + 0.3], dim=1), match


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("resolution", [14, 28])
def test_mask_targets_are_torchvisions(seed: int, resolution: int) -> None:
    targets = [cells(30, seed=seed), cells(12, seed=seed + 100)]
    rois = [jittered(target, seed) for target in targets]
    logits = torch.randn(80, 3, resolution, resolution, generator=torch.Generator().manual_seed(seed))
    labels = [target["labels"][match] for target, (_, match) in zip(targets, rois, strict=True)]
    boxes, matches = [boxes for boxes, _ in rois], [match for _, match in rois]
    theirs = maskrcnn_loss(logits, boxes, [dense_masks(t) for t in targets], [t["labels"] for t in targets], matches)
    own = logits[torch.arange(80), torch.cat(labels)]
    assert mask_loss(own, boxes, matches, targets) == pytest.approx(theirs.item(), abs=1e-5)


def test_a_large_roi_samples_as_torchvision_does() -> None:
    from torchvision.ops import roi_align

    target = cells(20, size=200)
    boxes = torch.tensor([[0.0, 0, 200, 200], [-3, 5.5, 190, 60], [10, 10, 10.2, 10.4], [150, 190, 230, 215]])
    where = (torch.zeros(4, dtype=torch.int64), target["layers"][:4], target["ids"][:4])
    ours = sample_mask_targets(target["label_map"][None], boxes, *where, 28)
    masks = dense_masks(target)[:4].float()
    rois = torch.cat([torch.arange(4.0)[:, None], boxes], dim=1)
    assert torch.allclose(ours, roi_align(masks[:, None], rois, 28, 1.0)[:, 0], atol=1e-4)


def test_mask_targets_are_sampled_in_float32_under_autocast() -> None:
    target = cells(6)
    boxes, match = jittered(target, 0)
    where = (torch.zeros(40, dtype=torch.int64), target["layers"][match], target["ids"][match])
    exact = sample_mask_targets(target["label_map"][None], boxes, *where, 28)
    for half in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", half):
            assert torch.equal(sample_mask_targets(target["label_map"][None], boxes, *where, 28), exact)
    assert exact.dtype == torch.float32 and exact.max() > 0


def test_no_rois_give_no_targets_and_a_zero_loss() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    assert sample_mask_targets(torch.zeros(1, 1, 8, 8), torch.zeros(0, 4), empty, empty, empty, 28).shape == (0, 28, 28)
    logits = torch.zeros(0, 28, 28, requires_grad=True)
    assert mask_loss(logits, [torch.zeros(0, 4)], [empty], [cells(3)]).item() == 0


def test_box_losses_are_torchvisions_without_class_weights() -> None:
    random = torch.Generator().manual_seed(0)
    logits, regression = torch.randn(50, 4, generator=random), torch.randn(50, 16, generator=random)
    labels, targets = torch.randint(4, (50,), generator=random), torch.randn(50, 4, generator=random)
    theirs = fastrcnn_loss(logits, regression, [labels], [targets])
    ours = classifier_loss(logits, labels, None), box_loss(regression, labels, targets)
    assert [loss.item() for loss in ours] == pytest.approx([loss.item() for loss in theirs], abs=1e-6)


def test_what_background_is_matched_with_does_not_matter() -> None:
    """In a tile without cells torchvision encodes against an empty box: the targets are infinite."""
    regression = torch.randn(2, 8, requires_grad=True)
    targets = torch.tensor([[0.0, 0, -math.inf, -math.inf], [math.nan] * 4])
    box = box_loss(regression, torch.tensor([0, 0]), targets)
    (gradient,) = torch.autograd.grad(box, regression)
    assert box.item() == 0 and not gradient.any()


def test_class_weights_move_the_classifier_loss() -> None:
    logits, labels = torch.tensor([[2.0, 0], [0, 2.0]]), torch.tensor([0, 0])
    plain = classifier_loss(logits, labels, None)
    mixed = classifier_loss(logits, torch.tensor([0, 1]), torch.tensor([1.0, 0]))
    assert plain.item() == pytest.approx((0.126928 + 2.126928) / 2, abs=1e-5)
    assert mixed.item() == pytest.approx(0.126928, abs=1e-5)


def test_a_cell_of_unknown_class_is_only_told_from_background() -> None:
    logits = torch.tensor([[0.3, 1.2, -0.4], [1.0, 0.1, 0.7]], requires_grad=True)
    loss = classifier_loss(logits, torch.tensor([UNKNOWN_CLASS, 2]), None)
    shares = logits.detach().softmax(dim=1)
    assert loss.item() == pytest.approx(-(math.log(1 - shares[0, 0].item()) + math.log(shares[1, 2].item())) / 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    ratio = (gradient[0, 1] / gradient[0, 2]).item()  # both classes rise as they are, so their ratio stays
    assert ratio == pytest.approx((shares[0, 1] / shares[0, 2]).item(), rel=1e-5) and gradient[0, 0] > 0
    weighted = classifier_loss(logits, torch.tensor([UNKNOWN_CLASS, 2]), torch.tensor([1.0, 1.0, 3.0]))
    wanted = -(2 * math.log(1 - shares[0, 0].item()) + 3 * math.log(shares[1, 2].item())) / 5
    assert weighted.item() == pytest.approx(wanted)
    assert supposed_labels(logits, torch.tensor([UNKNOWN_CLASS, 2])).tolist() == [1, 2]


def test_training_on_cells_of_unknown_class_reaches_boxes_and_masks() -> None:
    torch.manual_seed(0)
    model = build_model(resolve(TINY, 20), 2).train()
    target = cells(8)
    target["labels"] = torch.full_like(target["labels"], UNKNOWN_CLASS)
    losses = model(torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8), [target])
    assert all(math.isfinite(loss.item()) and loss.item() > 0 for loss in losses.values())
    losses["mask"].backward()
    assert model.roi_heads.mask_predictor.mask_fcn_logits.weight.grad.abs().sum() > 0


def test_detections_are_torchvisions_with_probabilities() -> None:
    torch.manual_seed(0)
    heads = build_model(resolve(TINY, 20), 3, PredictSettings(score_thresh=0.2, detections_per_tile=20)).roi_heads
    proposals = [torch.rand(60, 4).sort(dim=1).values * 90 for _ in range(2)]
    logits, offsets = torch.randn(120, 4), torch.randn(120, 16) * 0.3
    shapes = [(96, 96), (80, 96)]
    theirs = zip(*heads.postprocess_detections(logits, offsets, proposals, shapes), strict=True)
    for (boxes, scores, labels), ours in zip(
        theirs, heads.choose_detections(logits.softmax(dim=1), offsets, proposals, shapes), strict=True
    ):
        assert len(boxes) == 20 and torch.equal(ours["boxes"], boxes) and torch.equal(ours["labels"], labels)
        assert torch.equal(ours["scores"], scores)
        assert torch.allclose(ours["probabilities"].sum(dim=1), torch.ones(20))
        own = ours["probabilities"].gather(1, ours["labels"][:, None] - 1)[:, 0]
        assert (own >= ours["scores"]).all()  # of the classes alone, without the background


@pytest.mark.parametrize("proposals", [[], [[20.0, 20, 30, 30]]], ids=["none", "none that is likely a cell"])
@pytest.mark.parametrize("refine_boxes", [False, True])
def test_a_batch_of_tiles_without_cells_has_no_detections(refine_boxes: bool, proposals: list[list[float]]) -> None:
    """As a slide's glass has none: torchvision's own decoding would fail."""
    settings = PredictSettings(score_thresh=0.999, refine_boxes=refine_boxes)
    heads = build_model(resolve(TINY, 20), 2, settings).eval().roi_heads
    features = {name: torch.zeros(2, 16, 96 >> level, 96 >> level) for level, name in enumerate("0123", start=2)}
    with torch.inference_mode():
        found, _ = heads(features, [torch.tensor(proposals).reshape(-1, 4)] * 2, [(96, 96)] * 2)
    for of_tile in found:
        assert of_tile["boxes"].shape == (0, 4) and of_tile["probabilities"].shape == (0, 2)
        assert len(of_tile["masks"]) == len(of_tile["labels"]) == len(of_tile["scores"]) == 0


def test_boxes_are_predicted_again_from_where_they_are() -> None:
    """Of two proposals of 10 px, one is likely the second class, whose box is moved by half its width each time."""
    heads = build_model(resolve(TINY, 20), 2, PredictSettings(score_thresh=0.1, refine_boxes=True)).eval().roi_heads
    proposals = [torch.tensor([[20.0, 20, 30, 30], [60, 60, 70, 70]]), torch.zeros(0, 4)]
    first = torch.tensor([[1.0, 2.0, 5.0], [0, 0, 0.0]]).log()
    first[1] = torch.tensor([0.9, 0.05, 0.05]).log()
    offsets = torch.zeros(2, 12)
    offsets[0, 8] = 5.0  # in tenths of the width
    seen: list[torch.Tensor] = []

    def outputs(features: object, boxes: list[torch.Tensor], shapes: object) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(torch.cat(boxes))
        count = len(seen[-1])
        return (first if len(seen) == 1 else torch.tensor([[2.0, 2, 4]]).log())[:count], offsets[:count]

    heads._box_outputs = outputs
    features = {name: torch.zeros(2, 16, 96 >> level, 96 >> level) for level, name in enumerate("0123", start=2)}
    (found, nothing), _ = heads(features, proposals, [(96, 96), (96, 96)])
    assert seen[1].tolist() == [[25, 20, 35, 30]] and not len(nothing["boxes"])
    best = found["scores"].argmax()
    assert found["boxes"][best].tolist() == [30, 20, 40, 30] and found["labels"][best] == 2
    assert found["scores"][best].item() == pytest.approx((5 / 8 + 1 / 2) / 2)


def test_boxes_are_enlarged_about_their_centres() -> None:
    boxes = torch.tensor([[10.0, 20, 30, 60]])
    assert enlarge(boxes, 1.5).tolist() == [[5, 10, 35, 70]] and enlarge(boxes, 1) is boxes


@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_the_mask_head_sees_the_enlarged_box(scale: float) -> None:
    torch.manual_seed(0)
    settings = resolve(replace(TINY, mask_roi_scale=scale), 20)
    model = build_model(settings, 2, PredictSettings(score_thresh=0.0, detections_per_tile=10)).eval()
    with torch.inference_mode():
        (found,) = model(torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8))
    assert len(found["boxes"]) and torch.equal(found["mask_rois"], enlarge(found["boxes"], scale))


@pytest.mark.parametrize("detector", ["v1", "v2"])
def test_the_class_is_told_from_the_surroundings_too(detector: str) -> None:
    settings = resolve(replace(TINY, backbone="resnet50", detector=detector, norm="group"), 20)
    keep = PredictSettings(score_thresh=0.0, detections_per_tile=10)
    torch.manual_seed(0)
    alone = build_model(settings, 2, keep).eval()
    model = build_model(replace(settings, class_roi_scale=2.0), 2, keep).eval()
    missing = model.load_state_dict(alone.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith("roi_heads.surroundings.") for name in missing)
    features = {name: torch.randn(1, 16, 96 >> level, 96 >> level) for level, name in enumerate("0123", start=2)}
    changed = {name: level.clone() for name, level in features.items()}
    changed["0"][..., 4:, :] += 1  # rows 16 and on of the tile; the box ends at row 12, that of twice its sides at 18
    boxes, shapes = [torch.tensor([[20.0, 0, 32, 12]])], [(96, 96)]
    logits, offsets = alone.roi_heads._box_outputs(features, boxes, shapes)
    assert torch.equal(model.roi_heads._box_outputs(features, boxes, shapes)[0], logits)  # as before, at the start
    torch.nn.init.normal_(model.roi_heads.surroundings.cls_score.weight)
    here, there = (model.roi_heads._box_outputs(seen, boxes, shapes) for seen in (features, changed))
    assert torch.equal(here[1], offsets) and torch.equal(there[1], offsets)
    assert not torch.allclose(here[0], logits) and not torch.allclose(here[0], there[0])


@pytest.mark.parametrize(("detector", "name"), [("v1", "maskrcnn_resnet50_fpn"), ("v2", "maskrcnn_resnet50_fpn_v2")])
def test_state_dict_is_torchvisions(detector: str, name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=91).state_dict()
        ours = build_model(resolve(ModelSettings(weights="coco", detector=detector), 20), 90).state_dict()
    shapes = {name: tensor.shape for name, tensor in ours.items() if not name.endswith("num_batches_tracked")}
    assert shapes == {n: tensor.shape for n, tensor in theirs.items() if not n.endswith("num_batches_tracked")}


def test_torchvisions_weights_predict_the_same_boxes_here() -> None:
    torch.manual_seed(0)
    theirs = detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64, box_score_thresh=0.0,
        box_detections_per_img=10, rpn_post_nms_top_n_test=100, rpn_pre_nms_top_n_test=100,
    ).eval()  # fmt: skip
    settings = replace(ModelSettings(), weights="x", norm="frozen", head_norm="off", anchors="default", proposals=100)
    ours = build_model(
        replace(settings, trainable_layers=3), 2, PredictSettings(score_thresh=0.0, detections_per_tile=10)
    ).eval()
    load_matching(ours, theirs.state_dict(), "x")
    tile = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        expected, found = theirs([tile[0] / 255])[0], ours(tile)[0]
    assert torch.allclose(found["boxes"], expected["boxes"], atol=1e-2)
    assert torch.allclose(found["scores"], expected["scores"], atol=1e-4)
    assert found["masks"].shape == (len(found["boxes"]), 28, 28)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet101", "resnext101_32x8d", "convnext_base"])
def test_every_backbone_can_be_built_below_the_budget(backbone: str) -> None:
    with torch.device("meta"):
        model = build_model(resolve(ModelSettings(backbone=backbone, weights="none"), 20), 4)
    assert 2e7 < count_parameters(model) < 2e8


def test_a_model_over_the_budget_is_refused() -> None:
    wide = replace(resolve(TINY, 20), box_head_dim=300_000)
    with torch.device("meta"):
        with pytest.raises(InputError, match="exceed 200 M"):
            build_model(wide, 4)
        assert count_parameters(build_model(replace(wide, allow_large=True), 4)) > 200e6


def test_weights_are_held_against_settings_before_memory_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_model(resolve(TINY, 20), 4)
    config = replace(TrainConfig(), model=resolve(TINY, 20))
    checkpoint = Checkpoint(config, HOMEWORK_CLASSES, built.state_dict(), source="stranger.pt")
    assert restore_model(checkpoint, PredictSettings()).state_dict().keys() == built.state_dict().keys()
    monkeypatch.setattr("inference.build_model", lambda *arguments: pytest.fail("memory was asked for"))
    wide = replace(resolve(TINY, 20), box_head_dim=300_000, allow_large=True)
    with pytest.raises(InputError, match=r"stranger.pt: does not fit the network .* \(300000, \d+\)"):
        restore_model(replace(checkpoint, config=replace(config, model=wide)), PredictSettings())


def test_training_gives_losses_and_gradients_everywhere() -> None:
    torch.manual_seed(0)
    model = build_model(resolve(TINY, 20), 2).train()
    losses = model(torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8), [cells(10), cells(0)])
    assert set(losses) == {"classifier", "box", "mask", "objectness", "rpn_box"}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_tiles_of_any_size_are_predicted_within_their_bounds() -> None:
    model = build_model(resolve(TINY, 20), 2, PredictSettings(score_thresh=0.0)).eval()
    with torch.no_grad():
        found = model(torch.randint(0, 256, (1, 3, 33, 86), dtype=torch.uint8))[0]
    assert len(found["boxes"]) and (found["boxes"] >= 0).all()
    assert (found["boxes"][:, 2] <= 86).all() and (found["boxes"][:, 3] <= 33).all()


def test_frozen_stages_do_not_train() -> None:
    model = build_model(replace(resolve(TINY, 20), trainable_layers=2), 2)
    trained = {name for name, parameter in model.backbone.body.named_parameters() if parameter.requires_grad}
    assert trained and all(name.startswith(("layer3", "layer4")) for name in trained)
    everything = build_model(resolve(TINY, 20), 2)
    assert all(parameter.requires_grad for parameter in everything.parameters())


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="resnet18 has --weights imagenet"):
        resolve(replace(TINY, weights="coco"), 20)
    with pytest.raises(InputError, match="--detector v2 needs"):
        resolve(replace(TINY, detector="v2"), 20)
    with pytest.raises(InputError, match="five sides"):
        anchor_sizes(replace(TINY, anchors="8,16"))


def test_auto_settings_depend_on_the_weights_and_the_cells() -> None:
    scratch, pretrained = resolve(TINY, 20), resolve(replace(TINY, weights="imagenet", anchors="auto"), 24)
    assert (scratch.norm, scratch.head_norm, scratch.trainable_layers) == ("batch", "on", 5)
    assert (pretrained.norm, pretrained.head_norm, pretrained.trainable_layers) == ("frozen", "off", 3)
    assert pretrained.anchors == auto_anchors(24) == "12,24,48,96,192"


def test_backbone_weights_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    body = resnet18(weights=None).state_dict()
    torch.save(body, path)
    settings = replace(resolve(TINY, 20), weights=str(path))
    model = build_model(settings, 2)
    weights = read_weights(settings)
    assert weights is not None and norms_of(weights) is None
    report = load_matching(model, weights, "x")
    assert torch.equal(model.backbone.body.conv1.weight, body["conv1.weight"])
    assert any(name.startswith("rpn.") for name in report.random)
    assert set(report.left_over) == {"backbone.body.fc.weight", "backbone.body.fc.bias"}


def test_weights_that_do_not_fit_or_cannot_be_read_are_refused(tmp_path: Path) -> None:
    model = build_model(resolve(TINY, 20), 2)
    other, broken = tmp_path / "other.pth", tmp_path / "broken.pth"
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, other)
    broken.write_bytes(b"PK\x03\x04 broken")
    for path, words in ((other, "fits the backbone"), (broken, "is damaged"), (tmp_path / "none", "nor a file")):
        with pytest.raises(InputError, match=words):
            load_matching(model, read_weights(replace(TINY, weights=str(path))) or {}, "x")


def test_downloads_fail_with_the_place_where_the_file_belongs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    settings = resolve(replace(TINY, weights="imagenet"), 20)
    with pytest.raises(InputError, match=r"--weights imagenet: cannot be loaded .*resnet18-f37072fd.pth"):
        read_weights(settings)


@pytest.mark.parametrize(
    ("norm", "head_norm"), [("batch", "on"), ("batch", "off"), ("group", "on"), ("group", "off"), ("frozen", "off")]
)
def test_weights_of_a_detector_bring_their_norms(norm: str, head_norm: str) -> None:
    weights = build_model(replace(resolve(TINY, 20), norm=norm, head_norm=head_norm), 2).state_dict()
    assert norms_of(weights) == (norm, head_norm)
    settings = resolve(replace(TINY, weights="some.pt"), 20, norms_of(weights))
    assert (settings.norm, settings.head_norm, settings.trainable_layers) == (norm, head_norm, 3)
    report = load_matching(build_model(settings, 2), weights, "x")
    assert not report.random and not report.left_over
    given = resolve(replace(TINY, weights="some.pt", norm="frozen", head_norm="off"), 20, norms_of(weights))
    assert (given.norm, given.head_norm) == ("frozen", "off")


def test_downloaded_weights_are_used_where_they_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda *_, **__: resnet18().state_dict())
    settings = resolve(replace(TINY, weights="imagenet"), 20)
    report = load_matching(build_model(settings, 2), read_weights(settings) or {}, "x")
    assert len(report.loaded) > 90
