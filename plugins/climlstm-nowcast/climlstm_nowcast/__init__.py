"""Radar nowcasting for climlstm: readers, advection, categorical scores, fractions, spectra."""
