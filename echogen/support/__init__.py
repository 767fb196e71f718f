"""Threads, processes, signals, files, locks and words: what any room may use and none owns."""
