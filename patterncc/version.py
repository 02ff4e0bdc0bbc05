"""The version of patterncc: what pyproject.toml reads, and what packages say that they were made by."""

__version__ = "0.1.0"
