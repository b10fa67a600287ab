"""Box geometry: tensors in, tensors out."""
