"""Checks of datasets and stores: each finding names its check, its place and what to do."""

from echogen.checks.finding import Finding, Severity

__all__ = ["Finding", "Severity"]
