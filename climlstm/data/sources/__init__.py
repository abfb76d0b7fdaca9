"""Sources: catalogs, entries and what they declare; the axes and units of what is found."""
