"""The cube: a source under our names, units and order, lazy."""
