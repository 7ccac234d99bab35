"""Work in pieces, so that what it needs in between fits in bounded memory."""

# Large enough that an accelerator does not wait for the host between pieces.
CHUNK_BYTES = 32 * 2**20


def chunks(num_items: int, bytes_each: int) -> list[slice]:
    """All of `num_items`, in order; as many at a time as fit into CHUNK_BYTES, one at the least."""
    size = max(1, CHUNK_BYTES // max(1, bytes_each))
    return [slice(start, start + size) for start in range(0, num_items, size)]
