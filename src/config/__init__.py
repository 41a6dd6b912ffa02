"""Every setting, and how it becomes a flag and a key of a recipe.

- ``settings``: the settings, a frozen dataclass per concern
- ``flags``: from dataclasses to flags, TOML and back
- ``checks``: what flags alone can tell is refused at once
- ``command``: the parser that all commands share
"""
