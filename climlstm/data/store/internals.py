"""Names of zarr and zarrs that are not public, all in one place.

Where a release has moved one, `test_private_names_are_where_they_were` names it. Without those of
zarrs, zarr-python decodes.
"""

from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import _get_loop, sync

__all__ = ["default_buffer_prototype", "sync", "zarr_loop", "zarrs_pipeline"]

zarr_loop = _get_loop
"""The event loop, in a thread of its own, to which zarr's remote stores belong."""


def zarrs_pipeline() -> tuple[Any, Any]:
    """The classes of zarrs for a pipeline of codecs and for an item that it decodes.

    Raises ImportError where zarrs is missing or has moved them.
    """
    from zarrs._internal import ChunkItem, CodecPipelineImpl

    return CodecPipelineImpl, ChunkItem
