"""The page and the JSON endpoint of `nonlocalseg serve`."""
