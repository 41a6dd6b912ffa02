"""Every setting, and how it becomes a flag and a key of a recipe.

- ``settings``: the settings, a frozen dataclass per concern
- ``flags``: from dataclasses to flags, TOML and back
- ``command``: the parser that all commands share
"""
