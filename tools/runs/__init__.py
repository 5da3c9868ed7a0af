"""The ten published runs, here or on a cluster (`python -m tools.runs`)."""
