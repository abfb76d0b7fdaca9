"""The version of climlstm."""

__version__ = "0.1.0"
