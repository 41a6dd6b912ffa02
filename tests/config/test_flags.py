import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from src.common.errors import InputError, run_command
from src.config.checks import check_training, parse_loss_weights, parse_numbers
from src.config.command import flag_table, parse
from src.config.flags import Auto, build, flags_of, flatten, option, override, overrides, settings
from src.config.recipe import to_toml
from src.config.settings import InferenceConfig, TrainConfig


@dataclass(frozen=True)
class Inner:
    """A concern."""

    size: int = option(4, "side in px", low=1, high=9)
    batch: int | Auto = option(2, "tiles", low=1, auto=True, formerly_auto=0)
    mode: str = option("fast", "how", choices=("fast", "good"))


@dataclass(frozen=True)
class Small:
    """A command."""

    rate: float = option(0.5, "rate", low=0)
    name: str | None = option(None, "name")
    deep: bool = option(False, "deep")
    inner: Inner = settings(Inner)


def read(*argv: str) -> Small:
    return run_command(lambda: parse(Small, "about", argv=argv, recipe=True))


def test_defaults_and_flags_of_a_flattened_config() -> None:
    assert read() == Small()
    given = read("--size", "7", "--mode", "good", "--deep", "--rate", "2")
    assert given == Small(rate=2.0, deep=True, inner=Inner(7, mode="good"))


def test_a_number_that_the_program_chooses_is_auto(tmp_path: Path) -> None:
    assert read("--batch", "auto").inner.batch == "auto" and read("--batch", "5").inner.batch == 5
    recipe = tmp_path / "r.toml"
    for text in (to_toml(read("--batch", "auto")), "batch = 0"):  # the latter in recipes of earlier versions
        recipe.write_text(text)
        assert read("--recipe", str(recipe)).inner.batch == "auto"


def test_flag_wins_over_recipe_and_recipe_over_default(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('size = 8\nmode = "good"\nrate = 3\n')
    assert read("--recipe", str(recipe), "--size", "2") == Small(rate=3.0, inner=Inner(2, mode="good"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--sise", "3"], "unknown flag --sise; did you mean --size?"),
        (["--size", "0"], "--size must be at least 1, got 0"),
        (["--size", "10"], "--size must be at most 9, got 10"),
        (["--batch", "0.5"], "--batch expects a whole number or auto, got '0.5'"),
        (["--rate", "nan"], "--rate must be at least 0, got nan"),
        (["--mode", "fats"], "--mode must be one of fast, good; got 'fats'; did you mean fast?"),
        (["--size", "x"], "argument --size: invalid int value: 'x'"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        read(*argv)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {words}\n"


def test_a_wrong_recipe_names_its_file_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.toml"
    for text, words in (("sizes = 3", "did you mean size?"), ('size = "3"', "expects a whole number"), ("=", "TOML")):
        recipe.write_text(text)
        with pytest.raises(SystemExit):
            read("--recipe", str(recipe))
        error = capsys.readouterr().err
        assert error.startswith(f"error: {recipe}: ") and words in error and error.count("\n") == 1


@pytest.mark.parametrize("cls", [Small, TrainConfig, InferenceConfig])
def test_toml_round_trip(cls: type) -> None:
    assert build(cls, tomllib.loads(to_toml(cls()))) == cls()


def test_toml_escapes_text() -> None:
    config = build(Small, {"name": 'a "b" \\ \n é'})
    assert build(Small, tomllib.loads(to_toml(config))) == config


def test_print_config_is_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        read("--size", "5", "--print-config")
    assert not stopped.value.code
    assert build(Small, tomllib.loads(capsys.readouterr().out)) == Small(inner=Inner(size=5))


def test_flatten_is_the_inverse_of_build() -> None:
    config = build(TrainConfig, {"tile_size": 64, "lr": 0.1})
    assert config.tiles.tile_size == 64 and config.optimizer.lr == 0.1
    assert build(TrainConfig, flatten(config)) == config


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000, f"lr = {10**400}", "lr = inf", "lr = nan"])
def test_a_recipe_of_absurd_values_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: parse(TrainConfig, "x", argv=["--recipe", str(tmp_path / "r.toml")], recipe=True))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and "r.toml: " in said and said.count("\n") == 1


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = [
        sys.executable,
        "-c",
        "from src.common.errors import run_command; run_command(lambda: [print(i) for i in range(10**6)])",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]) as p:
        assert p.stdout and p.stderr and p.stdout.readline() == b"0\n"
        p.stdout.close()
        assert p.stderr.read() == b"" and p.wait() == 141


def test_keys_are_unique_and_every_flag_has_help() -> None:
    for cls in (TrainConfig, InferenceConfig):
        flags = flags_of(cls)
        assert len({flag.key for flag in flags}) == len(flags)
        assert all(len(flag.help) > 3 for flag in flags)


def test_settings_say_what_they_act_on() -> None:
    effects = {flag.key: flag.acts_on for flag in flags_of(TrainConfig)}
    assert None not in effects.values()
    some = {key: effects[key] for key in ("lr", "batch_size", "tta", "epochs", "workers", "detections_per_tile")}
    assert list(some.values()) == ["learning", "learning", "prediction", "budget", "nothing", "prediction"]
    shared = {flag.key: flag.acts_on for flag in flags_of(InferenceConfig) if flag.acts_on}
    assert shared == {key: effects[key] for key in shared} and {"tta", "amp", "device"} <= shared.keys()


@dataclass(frozen=True)
class Overriding:
    """A command that takes what is not given from elsewhere."""

    inner: Inner = overrides(Inner)


def test_settings_that_are_not_given_are_taken_from_elsewhere() -> None:
    given = parse(Overriding, "", argv=["--size", "7"])
    assert given.inner == Inner(7, None, None) and Overriding().inner == Inner(None, None, None)  # type: ignore[arg-type]
    assert override(Inner(2, mode="good"), given.inner) == Inner(7, mode="good")
    assert [flag.default for flag in flags_of(Overriding)] == [None] * 3
    assert build(Overriding, tomllib.loads(to_toml(given))) == given


def test_the_reference_command_line_is_understood() -> None:
    line = "--lr 0.005 --epochs 3 --batch-size 2 --num-classes 5 --data-path d --output-dir o --backend gloo"
    config = parse(TrainConfig, "", argv=line.split())
    assert (config.optimizer.lr, config.run.epochs, config.run.batch_size) == (0.005, 3, 2)
    assert (config.data.num_classes, config.data.data_path, config.run.output_dir) == (5, "d", "o")
    line = "--ckpt c --test-dir t --id-map i --output o --score-thresh 0.5"
    assert parse(InferenceConfig, "", argv=line.split()).predict.score_thresh == 0.5


def test_recipes_in_the_repository_are_valid() -> None:
    recipes = sorted((Path(__file__).parents[2] / "script/recipes").glob("*.toml"))
    assert recipes
    for recipe in recipes:
        config = parse(TrainConfig, "", check_training, ["--recipe", str(recipe)], recipe=True)
        says = any(line.startswith("# Downloads: ") for line in recipe.read_text().splitlines()[:4])
        assert says == (config.model.weights != "none"), recipe


def test_the_page_of_flags_is_true() -> None:
    page = (Path(__file__).parents[2] / "docs/flags.md").read_text(encoding="utf-8")
    for cls in (TrainConfig, InferenceConfig):
        assert flag_table(cls) in page, "python -m src.flag_tables writes it anew"


def test_loss_weights() -> None:
    weights = parse_loss_weights("box=2, mask=0.5")
    assert weights == {"classifier": 1, "box": 2, "mask": 0.5, "objectness": 1, "rpn_box": 1}
    for text in ("boxes=2", "box=x", "box=-1", "box"):
        with pytest.raises(InputError, match="--loss-weights"):
            parse_loss_weights(text)


def test_numbers() -> None:
    assert parse_numbers("8,16.5", "--anchors") == (8.0, 16.5)
    with pytest.raises(InputError, match="--anchors: 'a' is not a number"):
        parse_numbers("8,a", "--anchors")


def test_a_choice_may_hold_a_name() -> None:
    assert build(TrainConfig, {"backbone": "timm/tf_efficientnet_lite0.in1k"}).model.backbone.endswith(".in1k")
    for wrong in ("timm/", "timm/a b", "tim/resnet18", "timm/a/b"):
        with pytest.raises(InputError, match="--backbone"):
            build(TrainConfig, {"backbone": wrong})
