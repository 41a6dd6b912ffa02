"""Every setting, and how it becomes a flag and a key of a recipe.

- ``settings``: the settings, a frozen dataclass per concern
- ``flags``: from dataclasses to flags and back
- ``checks``: what flags alone can tell is refused at once
- ``recipe``: settings as TOML files
- ``command``: the command line that all commands share
"""
