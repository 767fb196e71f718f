"""Figures of datasets and stores: collected frame by frame, compared set by set."""
