"""From images to scores: how an image is seen, the windows, running a model over them, and predicting a photograph."""
