"""Every setting of the program, a frozen dataclass per concern. No torch here, so that ``--help`` answers at once."""

from dataclasses import dataclass
from functools import partial

from src.common.limits import DEFAULT_MAX_PIXELS
from src.config.flags import Auto, inherited, option, overrides, settings

# A setting is made by what a change of it changes:
learning = partial(option, acts_on="learning")  # the weights, and with them all else
prediction = partial(option, acts_on="prediction")  # what the same weights find
budget = partial(option, acts_on="budget")  # when training ends
nothing = partial(option, acts_on="nothing")  # neither: where and how fast it runs

BACKBONES = ("resnet18", "resnet50", "resnet101", "resnext101_32x8d", "convnext_base", "timm/NAME")
DEVICES = ("auto", "cuda", "cuda:N", "mps", "cpu")
LEAST_SCALE, MOST_SCALE = 0.05, 16.0
PRECISIONS = ("auto", "bf16", "fp16", "off")
HOMEWORK_TRAIN = "./hw3-data-release/train"
HOMEWORK_TEST = "./hw3-data-release/test_release"
HOMEWORK_ID_MAP = "./hw3-data-release/test_image_name_to_ids.json"


@dataclass(frozen=True)
class ImageSettings:
    """How images are read."""

    intensity: str = learning(
        "full",
        "how types wider than 8 bits become 8 bits: the type's full range, or the image's 0.1-99.9 percentile",
        choices=("full", "percentile"),
    )
    channel_order: str = learning(
        "auto",
        "order of the colours on disk; auto decides by the H&E stain colours of the training set",
        choices=("auto", "rgb", "bgr"),
    )
    split_pieces: bool = learning(
        False, "make each connected piece of a mask's id a cell, for masks of 0 and 255 or with one id in many places"
    )
    scale: float = learning(
        1.0, "factor by which every image is resized before it is cut into tiles", low=LEAST_SCALE, high=MOST_SCALE
    )
    mpp: float | None = prediction(
        None,
        "resolution of the files in µm per px; inference.py --mpp resizes images of another resolution by it",
        low=0.001,
        high=1000,
    )


@dataclass(frozen=True)
class TileSettings:
    """How training images are cut into tiles."""

    tile_size: int = learning(512, "side of a tile in px after --scale", low=32, high=8192)
    overlap: int = learning(256, "px that neighbouring training tiles share", low=0)
    empty_fraction: float = learning(
        0.1, "number of tiles without cells that are kept, as a fraction of the tiles with cells", low=0
    )
    min_visible: float = learning(
        0.25,
        "minimum visible fraction of a cell that a tile's edge cuts; with less of it the cell is background",
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class AugmentSettings:
    """How training tiles are augmented."""

    augment: str = learning(
        "full",
        "none; flips: flips and quarter turns; full: these, shift-scale-rotate and colour jitter",
        choices=("none", "flips", "full"),
    )
    affine_prob: float = learning(0.5, "probability of shift-scale-rotate, with --augment full", low=0, high=1)
    min_zoom: float = learning(
        1.0, "least factor by which a tile and what surrounds it are resized, with --augment full", low=0.1, high=10
    )
    max_zoom: float = learning(1.0, "greatest factor of that, drawn for each tile", low=0.1, high=10)
    stain_jitter: float = learning(
        0.0,
        "largest relative change of the strength of haematoxylin, eosin and the rest, with --augment full; the density of"
        " all together changes by a factor of up to 1 + 3 times this; 0.3 is strong",
        low=0,
        high=1,
    )
    jitter_prob: float = learning(0.3, "probability of colour jitter, with --augment full", low=0, high=1)
    jitter: float = learning(
        0.2, "largest relative change of brightness, contrast and saturation by colour jitter", low=0, high=1
    )
    blur_prob: float = learning(0.0, "probability of Gaussian blur, with --augment full", low=0, high=1)
    jpeg_prob: float = learning(0.0, "probability of JPEG compression, with --augment full", low=0, high=1)


@dataclass(frozen=True)
class ModelSettings:
    """The Mask R-CNN."""

    backbone: str = learning(
        "resnet50", "backbone under the feature pyramid; timm/NAME is one of the package timm", choices=BACKBONES
    )
    detector: str = learning("v1", "torchvision's Mask R-CNN v1 or v2; v2 needs resnet50", choices=("v1", "v2"))
    weights: str = learning("coco", "start from coco, imagenet, none (scratch), or a file of weights or checkpoint")
    norm: str = learning(
        "auto",
        "normalisation layers of the backbone; auto: as the weights have them, frozen with those of a backbone alone, "
        "batch from scratch",
        choices=("auto", "frozen", "batch", "group"),
    )
    head_norm: str = learning(
        "auto",
        "normalisation in the feature pyramid and the mask head too; auto: as the weights have it, on from scratch",
        choices=("auto", "on", "off"),
    )
    trainable_layers: int | Auto = learning(
        "auto",
        "backbone stages that are trained, counted from the top, 0-5; auto: 3 with weights, 5 from scratch",
        low=0,
        high=5,
        auto=True,
    )
    anchors: str = learning(
        "auto",
        "anchor sides in px after --scale: five numbers like 8,16,32,64,128, auto (from the cells) or default (32-512)",
    )
    fpn_channels: int = learning(256, "channels of the feature pyramid; COCO weights fit 256", low=8, high=1024)
    box_head_dim: int = learning(1024, "width of the box head's two layers; COCO weights fit 1024", low=8, high=4096)
    mask_head_channels: int = learning(256, "channels of the mask head; COCO weights fit 256", low=8, high=1024)
    mask_head_layers: int = learning(4, "3x3 convolutions of the mask head; COCO weights fit 4", low=1, high=32)
    rois_per_tile: int = learning(512, "proposals per tile that train the box head", low=8, high=10_000)
    mask_rois_per_tile: int = learning(
        128, "positive proposals per tile that train the mask head, at most", low=1, high=10_000
    )
    mask_roi_scale: float = learning(
        1.0,
        "sides of the mask head's RoI as a multiple of the box's; above 1 a mask may reach out of a box that is too small",
        low=1,
        high=3,
    )
    class_roi_scale: float = learning(
        0.0,
        "sides of a second RoI, as a multiple of the box's, that the class is told from too: a cell's surroundings say "
        "much about it; 0: none",
        low=0,
        high=8,
    )
    roi_samples: int = learning(
        2,
        "samples per side in each bin of an RoI; 1 trains faster on a CPU, where cells span few pixels of the features",
        low=1,
        high=16,
    )
    proposals: int = learning(
        2000,
        "proposals per tile that reach the heads in training and inference",
        low=10,
        high=100_000,
    )
    nms_threshold: float = prediction(
        0.5,
        "box IoU of two detections of a class in a tile above which the one with the lower score is dropped",
        low=0,
        high=1,
    )
    allow_large: bool = nothing(False, "allow a model of more than 200 million parameters")


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimisation."""

    optimizer: str = learning("sgd", "optimizer", choices=("sgd", "adamw"))
    lr: float = learning(0.005, "learning rate after warm-up", low=0)
    momentum: float = learning(0.9, "momentum of SGD", low=0, high=1)
    weight_decay: float = learning(1e-4, "weight decay; not applied to norms and biases", low=0)
    warmup_steps: int = learning(500, "steps of linear warm-up", low=0)
    schedule: str = learning(
        "constant", "how the learning rate changes after warm-up", choices=("constant", "cosine", "step")
    )
    step_epochs: int = learning(10, "epochs between divisions by ten, with --schedule step", low=1)
    loss_weights: str = learning(
        "classifier=1,box=1,mask=1,objectness=1,rpn_box=1",
        "weights of the five losses; those left out stay 1",
    )
    class_weights: str = learning(
        "none",
        "class weights inside the classifier loss: none, auto (rare classes up), or K+1 numbers, background first",
    )
    clip_norm: float = learning(10.0, "gradient norm is clipped to this; 0 does not clip", low=0)
    accumulate: int = learning(1, "batches whose gradients are added up before a step", low=1)
    ema: float = learning(
        0.0,
        "decay of the averaged weights used to predict, like 0.999; 0 keeps none",
        low=0,
        high=0.99999,
    )
    amp: str = learning(
        "auto",
        "mixed precision; auto: bf16 where the GPU or the CPU has it natively, else fp16 on a GPU and off on a CPU; "
        "a resumed run keeps its own",
        choices=PRECISIONS,
    )
    compile: bool = nothing(False, "compile the backbone; takes minutes at the start and gains nothing on a CPU")


@dataclass(frozen=True)
class PredictSettings:
    """Prediction."""

    score_thresh: float = prediction(0.05, "detections below this score are dropped", low=0, high=1)
    detections_per_tile: int = prediction(500, "detections per tile that are kept, best first", low=1, high=100_000)
    predict_overlap: int = prediction(128, "px that neighbouring tiles share when predicting", low=0)
    tta: str = prediction(
        "none",
        "test-time augmentation: how many views of each tile are predicted and merged; flips: four, full: eight",
        choices=("none", "flips", "full"),
    )
    refine_boxes: bool = prediction(
        False, "predict each box and its class once more from where the first prediction puts it; classes are the mean"
    )
    one_class_per_cell: bool = prediction(
        False, "keep the best class of each cell alone; AP counts the others as alternatives"
    )
    min_score: float = nothing(
        0.5, "score from which a cell is drawn and counted; the results keep those below it", low=0, high=1
    )
    whole_image: bool = prediction(False, "predict the whole image too, as one more tile")
    predict_batch_size: int = nothing(4, "tiles predicted at once", low=1)


@dataclass(frozen=True)
class RunSettings:
    """The run."""

    output_dir: str = nothing("./logs", "run folder")
    epochs: int = budget(30, "passes over the training tiles", low=1)
    max_steps: int | None = budget(None, "end the run and its schedule after this many steps", low=1)
    max_minutes: float | None = budget(
        None, "end the run and its schedule after this many minutes, not counting validation", low=0.01
    )
    batch_size: int | Auto = learning(
        4,
        "tiles per batch and process; auto: as many as the GPU's memory holds and leave eight steps per epoch (adjust --lr)",
        low=1,
        auto=True,
        formerly_auto=0,
    )
    workers: int | Auto = nothing(
        "auto",
        "processes that load data; auto: four per GPU, at most one less than the cores; none on a CPU",
        low=0,
        auto=True,
        formerly_auto=-1,
    )
    val_every: int = nothing(1, "epochs between validations; 0: only at the end", low=0)
    patience: int = budget(0, "stop after this many validations without a better AP50; 0: never", low=0)
    save_every: int = nothing(1, "epochs between checkpoints", low=1)
    resume: str | None = nothing(None, "resume from a checkpoint file, or auto: from the run folder's last good one")
    on_change: str = nothing(
        "refuse",
        "what --resume does where images or settings differ from the checkpoint's",
        choices=("refuse", "continue"),
    )


@dataclass(frozen=True)
class DataSettings:
    """The data."""

    data_path: str = nothing(HOMEWORK_TRAIN, "training folder: <name>/image.tif with class1.tif … classK.tif")
    num_classes: int | None = learning(
        None,
        "number of classes, counting the background; absent: 5, or as in the file of classes",
        low=2,
    )
    classes: str | None = nothing(
        None,
        'JSON file of classes [{"id": 1, "name": …, "color": "#rrggbb"}]; absent: classes.json in --data-path, else the homework\'s four',
    )
    split: str | None = nothing(None, "JSON file of part → names; train and val are used")
    val_fraction: float = learning(0.2, "share of the images for validation, without --split", low=0, high=0.9)
    groups: str | None = nothing(
        None, "JSON file of name → group that is kept together in a split; absent: by similar stain"
    )
    seed: int = learning(0, "seed of everything random", low=0)
    cache_dir: str | None = nothing(None, "folder for decoded images and label maps; absent: the user's cache folder")
    cache_gb: float = nothing(20.0, "maximum size of the cache in GB; 0: no cache", low=0)

    @property
    def class_count(self) -> int | None:
        """K, which does not count the background as ``--num-classes`` does."""
        return None if self.num_classes is None else self.num_classes - 1


@dataclass(frozen=True)
class MachineSettings:
    """The machine."""

    device: str = nothing(
        "auto",
        "auto: GPUs where there are any, else Apple's MPS, else the CPU; cuda:1 is one of several GPUs",
        choices=DEVICES,
    )
    backend: str = nothing(
        "auto",
        "torch.distributed backend; auto: nccl with CUDA, else gloo",
        choices=("auto", "nccl", "gloo"),
    )
    timeout_minutes: float = nothing(
        120.0,
        "minutes that processes wait for one another, for example while one decodes a large image",
        low=0.1,
    )
    max_pixels: int = nothing(
        DEFAULT_MAX_PIXELS, "files of more px (height times width) are refused before memory is used", low=1
    )


@dataclass(frozen=True)
class TrainConfig:
    """The flags of ``main.py``."""

    data: DataSettings = settings(DataSettings)
    run: RunSettings = settings(RunSettings)
    optimizer: OptimizerSettings = settings(OptimizerSettings)
    model: ModelSettings = settings(ModelSettings)
    image: ImageSettings = settings(ImageSettings)
    tiles: TileSettings = settings(TileSettings)
    augment: AugmentSettings = settings(AugmentSettings)
    predict: PredictSettings = settings(PredictSettings)
    machine: MachineSettings = settings(MachineSettings)


@dataclass(frozen=True)
class PreviewConfig(TrainConfig):
    """The flags of ``dataset.py``: those of ``main.py``, so that its recipes work, and two more."""

    preview: str = option("", "folder for the pictures of tiles as the network is given them", required=True)
    pictures: int = option(8, "how many tiles are drawn", low=1)


@dataclass(frozen=True)
class InferenceConfig:
    """The flags of ``inference.py``. Prediction settings that are absent come from the checkpoint."""

    ckpt: tuple[str, ...] = option(
        ("./logs/best.pt",), "checkpoint made by main.py, or several, whose detections are merged"
    )
    export: str | None = option(
        None,
        "write the checkpoint's weights to this .safetensors file, which --ckpt and --weights read, and stop; prediction settings given beside it are kept in it",
    )
    half: bool = option(False, "with --export: in half precision, which takes half the space")
    test_dir: str = option(
        HOMEWORK_TEST,
        "folder of images (TIFF, PNG, JPEG, BMP, WebP) or of slides, or a folder in the training layout, or one slide",
    )
    id_map: str | None = option(
        None,
        f"JSON list of file_name, id, height, width; absent: {HOMEWORK_ID_MAP} for the homework's folder, else 1..N by name",
    )
    output: str = option("./test-results.json", "results file; for slides a folder, with a folder per slide in it")
    resume: bool = option(False, "resume an interrupted prediction: finished images are not predicted again")
    split: str | None = option(None, "JSON file of part → names; only --part is predicted")
    part: str = option("val", "part of --split")
    probabilities: bool = option(
        False, "add each detection's class probabilities to the results; they are always in exported tables"
    )
    zip: str | None = option(None, "zip that the results are also packed into, as test-results.json")
    overlay: str | None = option(
        None, "folder for one picture per image: cells of --min-score and up, outlined in the colours of their classes"
    )
    slide_pixels: int | None = option(
        None, "TIFF files of more px are predicted as slides, in bounded memory; absent: --max-pixels", low=1
    )
    tissue: str = option(
        "auto",
        "what of a slide is predicted: auto (tissue by its colour), all, a GeoJSON file of regions, or a folder with NAME.geojson for each slide",
    )
    shard: str | None = option(None, "i/n: predict every n-th slide from the i-th on, for jobs of a cluster")
    channel_order: str | None = inherited(
        ImageSettings,
        "channel_order",
        help="order of the colours on disk; absent: as in training",
        choices=("rgb", "bgr"),
    )
    intensity: str | None = inherited(
        ImageSettings,
        "intensity",
        help="how types wider than 8 bits become 8 bits (see main.py); absent: as in training",
    )
    scale: float | None = inherited(
        ImageSettings, "scale", help="factor by which every image is resized; absent: as in training"
    )
    mpp: float | None = inherited(
        ImageSettings,
        "mpp",
        help="resolution of the images in µm per px, which are resized to that of the training; absent: as in training",
    )
    amp: str | None = inherited(
        OptimizerSettings,
        "amp",
        help="mixed precision; absent: as the checkpoint was trained where this device has that natively, else off",
    )
    predict: PredictSettings = overrides(PredictSettings)
    machine: MachineSettings = settings(MachineSettings)
