"""Training on Lightning: the plan, loaders, the LightningModule, run folders and `train()`."""
