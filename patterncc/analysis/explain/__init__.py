"""Verdicts, differences and costs in words, and edits that mend a broken promise."""
