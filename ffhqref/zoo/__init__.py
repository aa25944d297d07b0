"""Restorers: one folder a method."""
