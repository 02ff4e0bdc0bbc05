"""Sets of block and token pairs, exact for every length."""
