"""Heads from backbone stages to class scores: one file per family, with its options, its `build` and its `forward`."""
