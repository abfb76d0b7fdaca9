"""`dataset.climlstm`: draw, leaf through and score datasets in a notebook."""
