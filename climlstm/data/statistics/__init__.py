"""Statistics and climatology of the training period."""
