"""Checkpoints of other projects into ours and back, by visible tables."""
