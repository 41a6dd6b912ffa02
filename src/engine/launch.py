"""Start a script in as many processes as there are GPUs for it.

python -m src.engine.launch main.py --recipe script/recipes/cpu.toml
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from src.common.errors import InputError, run_command
from src.config.command import Parser
from src.config.recipe import read_recipe

NEEDS_ONE_PROCESS = {"-h", "--help", "--print-config", "--export"}


def wanted_device(flags: Sequence[str]) -> str:
    """The device that a script's flags ask for, or else the recipe that they name.

    Flags that are wrong are reported by the script itself.
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
    """One process per GPU that torch sees; one for another device, a named GPU, or flags that only print or export."""
    if NEEDS_ONE_PROCESS & {flag.split("=")[0] for flag in flags} or wanted_device(flags) not in ("auto", "cuda"):
        return 1
    import torch  # takes seconds, so only where GPUs matter

    return torch.cuda.device_count() if torch.cuda.is_available() else 1


def run_processes(count: int, script: str, flags: Sequence[str]) -> int:
    """Run a script in several processes through torchrun; the exit code of the first that failed, else 0."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(["--standalone", f"--nproc-per-node={count}", script, *flags])
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return 128 - code if code < 0 else code  # negative where a signal ended it
    return 0


def main() -> None:
    """Replace this process by the script, or start several processes of it and wait for them."""
    parser = Parser(__doc__)
    parser.add_argument("script", help="main.py or inference.py; what follows are its flags")
    script = parser.parse_args(sys.argv[1:2]).script
    flags = sys.argv[2:]
    count = count_processes(flags)
    if count > 1:
        sys.exit(run_processes(count, script, flags))
    os.execv(sys.executable, [sys.executable, script, *flags])


if __name__ == "__main__":
    run_command(main)
