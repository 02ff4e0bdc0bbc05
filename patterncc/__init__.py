"""A compiler for sparse attention patterns: YAML in, a proved and importable kernel package out."""

__version__ = "0.1.0"
