"""From a data.yaml to batches: the dataset's files, labels and images, and how they are augmented and loaded."""
