"""Tests of climlstm, and the helpers that they share."""
