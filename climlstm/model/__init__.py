"""The network and its units: tensors only, no dataset and no run file."""
