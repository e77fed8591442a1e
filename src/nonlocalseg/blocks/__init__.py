"""The blocks of both papers: tensors in, tensors out; they know no image, class or file."""
