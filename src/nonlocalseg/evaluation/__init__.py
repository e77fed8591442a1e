"""Measuring models: scores on labelled data, their files, the comparison of two models, and benchmark submissions."""
