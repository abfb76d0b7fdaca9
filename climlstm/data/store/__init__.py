"""From stored bytes to arrays: chunks, parts, remote objects, buffers."""
