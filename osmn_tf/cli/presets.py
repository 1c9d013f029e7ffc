"""Lists the models that ship with this installation, with what is known of each.

The names are what --preset takes; a preset folder or a .keras file can be given there too.
"""

from __future__ import annotations

import argparse

from osmn_tf.models.presets import list_presets, read_metadata


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`osmn presets` has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Prints one paragraph a preset."""
    presets = list_presets()
    if not presets:
        print("No presets ship with this installation.")
    for name, folder in presets.items():
        metadata = read_metadata(folder)
        print(f"{name}: {metadata.get('description', 'no description')}")
        print(f"    {metadata['parameters'] / 1e6:.1f} M parameters, {folder}")
    return 0
