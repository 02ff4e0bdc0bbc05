"""Attention over the template pattern: a window of two blocks, and of the rest every fourth."""

from .layout import dense_mask
from .ops import attention
from .pattern import FACTS as PATTERN

__all__ = ["PATTERN", "attention", "dense_mask"]
