"""Synthetic low-quality pictures: parameters drawn first, then applied."""
