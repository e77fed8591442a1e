"""Named presets of training options, and the published figures that they answer to."""
