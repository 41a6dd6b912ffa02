"""Every setting of the program, a frozen dataclass per concern. No torch here, so that ``--help`` answers at once."""

from dataclasses import dataclass

from src.common.errors import InputError
from src.common.limits import MAX_PIXELS
from src.config.command import MAX_PIXELS_HELP
from src.config.flags import option, settings

BACKBONES = ("resnet18", "resnet50", "resnet101", "resnext101_32x8d", "convnext_base")
DEVICES = ("auto", "cuda", "cuda:N", "mps", "cpu")
DEVICE_HELP = "auto: GPUs where there are any, else Apple's MPS, else the CPU; cuda:1 is one of several GPUs"
TIMEOUT_MINUTES = 120.0
TIMEOUT_HELP = "minutes that processes wait for one another before they give up, as while one decodes a large image"
PRECISIONS = ("auto", "bf16", "fp16", "off")
HOMEWORK_TRAIN = "./hw3-data-release/train"
HOMEWORK_TEST = "./hw3-data-release/test_release"
HOMEWORK_ID_MAP = "./hw3-data-release/test_image_name_to_ids.json"


@dataclass(frozen=True)
class ImageSettings:
    """How images are read."""

    intensity: str = option(
        "full",
        "how types wider than 8 bits become 8 bits: the type's full range, or the image's 0.1-99.9 percentile",
        choices=("full", "percentile"),
    )
    channel_order: str = option(
        "auto",
        "order of the colours on disk; auto decides by the H&E stain colours of the training set",
        choices=("auto", "rgb", "bgr"),
    )
    scale: float = option(1.0, "magnification of every image before it is tiled", low=0.05, high=16)
    max_pixels: int = option(MAX_PIXELS, MAX_PIXELS_HELP, low=1)


@dataclass(frozen=True)
class TileSettings:
    """How training images are cut into tiles."""

    tile_size: int = option(512, "side of a tile in px after --scale", low=32, high=8192)
    overlap: int = option(256, "px that neighbouring training tiles share", low=0)
    empty_fraction: float = option(0.1, "tiles without cells kept as negatives, as a share of those with cells", low=0)
    min_visible: float = option(
        0.25,
        "minimum visible fraction of a cell that a tile's edge cuts; with less of it the cell is background",
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class AugmentSettings:
    """How training tiles are augmented."""

    augment: str = option(
        "full",
        "none; flips (and quarter turns); full adds shift-scale-rotate and colour jitter",
        choices=("none", "flips", "full"),
    )
    affine_prob: float = option(0.5, "probability of shift-scale-rotate, with --augment full", low=0, high=1)
    jitter_prob: float = option(0.3, "probability of colour jitter, with --augment full", low=0, high=1)


@dataclass(frozen=True)
class ModelSettings:
    """The Mask R-CNN."""

    backbone: str = option("resnet50", "backbone under the feature pyramid", choices=BACKBONES)
    detector: str = option("v1", "torchvision's Mask R-CNN v1 or v2; v2 needs resnet50", choices=("v1", "v2"))
    weights: str = option("coco", "start from coco, imagenet, none (scratch), or a file of weights or checkpoint")
    norm: str = option(
        "auto",
        "normalisation layers of the backbone; auto: as the weights have them, frozen with those of a backbone alone, "
        "batch from scratch",
        choices=("auto", "frozen", "batch", "group"),
    )
    head_norm: str = option(
        "auto",
        "normalisation in the feature pyramid and the mask head too; auto: as the weights have it, on from scratch",
        choices=("auto", "on", "off"),
    )
    trainable_layers: int | None = option(
        None,
        "backbone stages that are trained, counted from the top, 0-5; absent: 3 with weights, 5 from scratch",
        low=0,
        high=5,
    )
    anchors: str = option(
        "auto",
        "anchor sides in px after --scale: five numbers like 8,16,32,64,128, auto (from the cells) or default (32-512)",
    )
    fpn_channels: int = option(256, "channels of the feature pyramid; COCO weights fit 256", low=8, high=1024)
    box_head_dim: int = option(1024, "width of the box head's two layers; COCO weights fit 1024", low=8, high=4096)
    mask_head_channels: int = option(256, "channels of the mask head; COCO weights fit 256", low=8, high=1024)
    mask_head_layers: int = option(4, "3x3 convolutions of the mask head; COCO weights fit 4", low=1, high=32)
    rois_per_tile: int = option(512, "proposals per tile that train the box head", low=8, high=10_000)
    mask_rois_per_tile: int = option(
        128, "positive proposals per tile that train the mask head, at most", low=1, high=10_000
    )
    roi_samples: int = option(
        2,
        "samples per side in each bin of an RoI; 1 trains faster on a CPU, where cells span few pixels of the features",
        low=1,
        high=16,
    )
    proposals: int = option(
        2000, "proposals per tile that reach the heads in training and inference", low=10, high=100_000
    )
    detections_per_tile: int = option(500, "detections per tile that are kept, best first", low=1, high=100_000)
    nms_threshold: float = option(
        0.5, "box IoU above which the lower of two detections of a class is dropped in a tile", low=0, high=1
    )
    allow_large: bool = option(False, "allow a model of more than 200 million parameters")


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimisation."""

    optimizer: str = option("sgd", "optimizer", choices=("sgd", "adamw"))
    lr: float = option(0.005, "learning rate after warm-up", low=0)
    momentum: float = option(0.9, "momentum of SGD", low=0, high=1)
    weight_decay: float = option(1e-4, "weight decay; norms and biases are spared", low=0)
    warmup_steps: int = option(500, "steps of linear warm-up", low=0)
    schedule: str = option("constant", "learning rate after warm-up", choices=("constant", "cosine", "step"))
    step_epochs: int = option(10, "epochs between divisions by ten, with --schedule step", low=1)
    loss_weights: str = option(
        "classifier=1,box=1,mask=1,objectness=1,rpn_box=1", "weights of the five losses; those left out stay 1"
    )
    class_weights: str = option(
        "none",
        "class weights inside the classifier loss: none, auto (rare classes up), or K+1 numbers, background first",
    )
    clip_norm: float = option(10.0, "gradient norm is clipped to this; 0 does not clip", low=0)
    accumulate: int = option(1, "batches whose gradients are added up before a step", low=1)
    ema: float = option(
        0.0, "decay of the averaged weights used to predict, like 0.999; 0 keeps none", low=0, high=0.99999
    )
    amp: str = option(
        "auto",
        "mixed precision; auto: bf16 where the GPU or the CPU has it natively, else fp16 on a GPU and off on a CPU; "
        "in a run that is resumed, what it began with",
        choices=PRECISIONS,
    )
    compile: bool = option(False, "compile the backbone for the machine; takes minutes once, gains nothing on a CPU")


@dataclass(frozen=True)
class PredictSettings:
    """Prediction."""

    score_thresh: float = option(0.05, "detections below this score are dropped", low=0, high=1)
    predict_overlap: int = option(128, "px that neighbouring tiles share when predicting", low=0)
    tta: str = option(
        "none",
        "test-time augmentation: views of each tile that are predicted and merged, flips four, full eight",
        choices=("none", "flips", "full"),
    )
    whole_image: bool = option(False, "predict the whole image too, as one more tile")
    predict_batch_size: int = option(4, "tiles predicted at once", low=1)
    device: str = option("auto", DEVICE_HELP, choices=DEVICES)


@dataclass(frozen=True)
class RunSettings:
    """The run."""

    epochs: int = option(30, "passes over the training tiles", low=1)
    max_steps: int | None = option(None, "stop, schedules included, after this many steps", low=1)
    max_minutes: float | None = option(
        None, "stop, schedules included, after this many minutes, validation not counted", low=0.01
    )
    batch_size: int = option(
        4,
        "tiles per step and GPU; auto: as many as the GPU's memory holds and leave eight steps per epoch (set --lr to suit)",
        low=1,
        auto=0,
    )
    workers: int = option(
        -1,
        "processes that load data; auto: four per GPU, at most one less than the cores; none on a CPU",
        low=0,
        auto=-1,
    )
    seed: int = option(0, "seed of everything random", low=0)
    val_every: int = option(1, "epochs between validations; 0 validates at the end alone", low=0)
    patience: int = option(0, "stop after this many validations without a better AP50; 0 never", low=0)
    save_every: int = option(1, "epochs between checkpoints", low=1)
    resume: str | None = option(None, "go on from a checkpoint file, or auto: the run folder's last good one")
    on_change: str = option(
        "refuse",
        "what --resume does where images or settings are not those of the checkpoint",
        choices=("refuse", "continue"),
    )
    backend: str = option(
        "auto", "torch.distributed backend; auto: nccl with CUDA, else gloo", choices=("auto", "nccl", "gloo")
    )
    timeout_minutes: float = option(TIMEOUT_MINUTES, TIMEOUT_HELP, low=0.1)
    cache_dir: str | None = option(None, "folder for decoded images and label maps; absent: the user's cache folder")
    cache_gb: float = option(20.0, "size that the cache may grow to, in GB; 0 keeps none on disk", low=0)


@dataclass(frozen=True)
class DataSettings:
    """The data."""

    data_path: str = option(HOMEWORK_TRAIN, "training folder: <name>/image.tif with class1.tif … classK.tif")
    output_dir: str = option("./logs", "run folder")
    num_classes: int | None = option(
        None, "number of classes with the background; absent: 5, or as in the file of classes", low=2
    )
    classes: str | None = option(
        None,
        'JSON file of classes [{"id": 1, "name": …, "color": "#rrggbb"}]; absent: classes.json in --data-path, else the homework\'s four',
    )
    split: str | None = option(None, "JSON file of part → names; train and val are used")
    val_fraction: float = option(0.2, "share of the images for validation, without --split", low=0, high=0.9)
    groups: str | None = option(
        None, "JSON file of name → group that is kept together in a split; absent: by stain likeness"
    )


@dataclass(frozen=True)
class TrainConfig:
    """Everything that ``main.py`` can be told."""

    data: DataSettings = settings(DataSettings)
    run: RunSettings = settings(RunSettings)
    optimizer: OptimizerSettings = settings(OptimizerSettings)
    model: ModelSettings = settings(ModelSettings)
    image: ImageSettings = settings(ImageSettings)
    tiles: TileSettings = settings(TileSettings)
    augment: AugmentSettings = settings(AugmentSettings)
    predict: PredictSettings = settings(PredictSettings)


@dataclass(frozen=True)
class PreviewConfig(TrainConfig):
    """Everything that ``dataset.py`` can be told: what ``main.py`` can, so that its recipes will do."""

    preview: str | None = option(None, "folder for the pictures of tiles as the network is given them")
    pictures: int = option(8, "how many tiles are drawn", low=1)


@dataclass(frozen=True)
class InferenceConfig:
    """Everything that ``inference.py`` can be told. What is absent comes from the checkpoint."""

    ckpt: tuple[str, ...] = option(
        ("./logs/best.pt",), "checkpoint made by main.py, or several, whose detections are merged"
    )
    export: str | None = option(
        None, "write the checkpoint's weights to this .safetensors file, which --ckpt and --weights read, and stop"
    )
    test_dir: str = option(HOMEWORK_TEST, "folder of .tif images, or a folder in the training layout")
    id_map: str | None = option(
        None,
        f"JSON list of file_name, id, height, width; absent: {HOMEWORK_ID_MAP} for the homework's folder, else 1..N by name",
    )
    output: str = option("./test-results.json", "where the results go")
    resume: bool = option(False, "go on with an interrupted prediction: images that are done are not predicted again")
    split: str | None = option(None, "JSON file of part → names; only --part is predicted")
    part: str = option("val", "part of --split")
    zip: str | None = option(None, "also pack the results as test-results.json into this zip")
    overlay: str | None = option(
        None, "folder for one picture per image: cells of score 0.5 and up, outlined in the colours of their classes"
    )
    score_thresh: float | None = option(
        None, "detections below this score are dropped; 0.05 where the training said nothing else", low=0, high=1
    )
    predict_overlap: int | None = option(None, "px that neighbouring tiles share", low=0)
    tta: str | None = option(None, "test-time augmentation of each tile", choices=("none", "flips", "full"))
    whole_image: bool | None = option(None, "predict the whole image too, as one more tile")
    predict_batch_size: int | None = option(None, "tiles predicted at once", low=1)
    detections_per_tile: int | None = option(None, "detections per tile that are kept, best first", low=1)
    channel_order: str | None = option(None, "order of the colours on disk", choices=("rgb", "bgr"))
    amp: str | None = option(
        None,
        "mixed precision; absent: as the checkpoint was trained where this device has that natively, else off",
        choices=PRECISIONS,
    )
    max_pixels: int = option(MAX_PIXELS, MAX_PIXELS_HELP, low=1)
    device: str = option("auto", DEVICE_HELP, choices=DEVICES)
    backend: str = option(
        "auto", "torch.distributed backend; auto: nccl with CUDA, else gloo", choices=("auto", "nccl", "gloo")
    )
    timeout_minutes: float = option(TIMEOUT_MINUTES, TIMEOUT_HELP, low=0.1)


def parse_loss_weights(text: str) -> dict[str, float]:
    """``"box=2,mask=1"`` → a weight for each of the five losses, 1 for those left out."""
    weights = dict.fromkeys(("classifier", "box", "mask", "objectness", "rpn_box"), 1.0)
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name.strip() not in weights:
            raise InputError(f"--loss-weights: {name.strip()!r} is not one of {', '.join(weights)}")
        weights[name.strip()] = parse_number(value, "--loss-weights")
    return weights


def parse_numbers(text: str, flag: str) -> tuple[float, ...]:
    """``"8,16,32"`` → numbers ≥ 0; an :class:`InputError` names the flag."""
    return tuple(parse_number(part, flag) for part in text.split(","))


def parse_number(text: str, flag: str) -> float:
    """A finite number ≥ 0; an :class:`InputError` names the flag."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{flag}: {text.strip()!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise InputError(f"{flag}: {text.strip()} is not a finite number of at least 0")
    return value
