"""`echogen stats` as one offline page: plots, pictures and where the samples come from."""

from echogen.html.page import Look, write_report

__all__ = ["Look", "write_report"]
