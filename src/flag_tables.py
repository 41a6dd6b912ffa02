"""Write the tables of docs/flags.md anew from the settings: ``python -m src.flag_tables``."""

from pathlib import Path

from src.common.errors import run_command
from src.common.files import write_text
from src.config.command import Parser, flag_table
from src.config.settings import InferenceConfig, TrainConfig

END = "<!-- end of flags -->"


def with_tables(text: str) -> str:
    """The text with the flag tables between their markers brought up to date."""
    for name, config in (("main.py", TrainConfig), ("inference.py", InferenceConfig)):
        before, start, rest = text.partition(f"<!-- flags of {name} -->\n")
        _, end, after = rest.partition(END)
        text = before + start + flag_table(config) + end + after
    return text


def main() -> None:
    """Rewrite docs/flags.md beside this package."""
    Parser(__doc__).parse_args()
    path = Path(__file__).resolve().parents[1] / "docs/flags.md"
    write_text(path, with_tables(path.read_text(encoding="utf-8")))
    print(f"wrote {path}")


if __name__ == "__main__":
    run_command(main)
