"""From a data.yaml to batches: what the dataset is, its labels, its images, and how they are augmented and loaded."""
