"""Coasts, borders, lakes and land of the world at 1:110 million (see README.md beside this)."""
