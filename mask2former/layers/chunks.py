"""Work in pieces, so that what it needs in between fits in bounded memory."""

# Large enough that an accelerator does not wait for the host between pieces.
CHUNK_BYTES = 32 * 2**20


def chunks(num_items: int, bytes_each: int, budget: int | None = None) -> list[slice]:
    """All of `num_items`, in order; as many at a time as fit into `budget`, one at the least.

    Args:
        budget: bytes; None: CHUNK_BYTES.
    """
    size = max(1, (CHUNK_BYTES if budget is None else budget) // max(1, bytes_each))
    return [slice(start, start + size) for start in range(0, num_items, size)]
