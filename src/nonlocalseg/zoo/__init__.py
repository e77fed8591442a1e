"""Public checkpoints by name: which there are, where they lie, what was published of them, and how they are loaded."""
