"""Rendered samples in, painted shards out: engines, devices and the stream of a run."""
