"""Image/label pairs and everything that happens to them before they reach a model."""
