"""What a model attends to at one pixel, its masks, stages and features: as tensors (`collect`, `features`) and pictures."""
