"""Start a script in as many processes as it has GPUs: ``python -m src.engine.launch main.py [flags of main.py]``."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from src.common.errors import InputError, run
from src.config.command import Parser
from src.config.flags import read_recipe

ANSWERED_AT_ONCE = {"-h", "--help", "--print-config"}


def wanted_device(flags: Sequence[str]) -> str:
    """The device that a script's flags, or else the recipe that they name, ask for.

    Whatever is wrong with them is for the script itself to say.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--device")
    parser.add_argument("--recipe")
    with suppress(InputError, argparse.ArgumentError):
        given = parser.parse_known_args(flags)[0]
        recipe = read_recipe(given.recipe) if given.recipe else {}
        return str(given.device or recipe.get("device", "auto"))
    return "cpu"


def count_processes(flags: Sequence[str]) -> int:
    """One process per GPU that torch sees; one in all on another device, on a GPU that is named, or just to answer."""
    if ANSWERED_AT_ONCE & set(flags) or wanted_device(flags) not in ("auto", "cuda"):
        return 1
    import torch  # seconds, which only the question about GPUs is worth

    return max(torch.cuda.device_count(), 1)


def command(script: str, flags: Sequence[str]) -> list[str]:
    """What to run: the script itself, or torchrun with it."""
    processes = count_processes(flags)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return [sys.executable, *launcher, script, *flags]


def main() -> None:
    """Replace this process by the script's."""
    parser = Parser(
        __doc__, "python -m src.engine.launch main.py --recipe script/recipes/cpu.toml", "python -m src.engine.launch"
    )
    parser.add_argument("script", help="main.py or inference.py; what follows are its flags")
    script = parser.parse_args(sys.argv[1:2]).script
    arguments = command(script, sys.argv[2:])
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    run(main)
