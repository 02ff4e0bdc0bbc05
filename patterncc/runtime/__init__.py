"""Packages on this machine: kept in a cache, exported, imported."""
