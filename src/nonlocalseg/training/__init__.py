"""Training on Lightning: recipes, loaders, the LightningModule, `train()` and `evaluate()`."""
