"""Pictures of patterns: in the terminal, and as SVG, PNG and HTML files."""

from patterncc.pictures.terminal import show_terminal

__all__ = ["show_terminal"]
