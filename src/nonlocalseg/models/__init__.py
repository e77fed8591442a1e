"""From names to networks: configs, backbones, the Segmenter, and what is done with whole models."""
