"""Checks of datasets and stores: each finding names its check, its place and what to do."""
