"""The ways to compute deformable attention, and which of them a device gets.

B batch, Q queries, M heads, D channels a head, L levels, P points, S = sum of all H * W.
A new way is one file here with one class, registered and imported by this package's __init__.
"""

import functools
import logging

from detectron2.utils.registry import Registry
from torch import Tensor

from mask2former.layers.levels import Levels

MS_DEFORM_ATTN_REGISTRY = Registry("MS_DEFORM_ATTN")
MS_DEFORM_ATTN_REGISTRY.__doc__ = "Subclasses of MSDeformAttnOp; MODEL.SEM_SEG_HEAD.MS_DEFORM_ATTN"

logger = logging.getLogger(__name__)


class MSDeformAttnOp:
    """One way to compute deformable attention. Stateless: it is used as a class."""

    @staticmethod
    def rank(device_type: str) -> int:
        """Of the ops that run on a device type, `auto` takes the one of the highest rank there."""
        raise NotImplementedError

    @staticmethod
    def why_not(device_type: str) -> str:
        """What keeps this op from running on that device type; empty if nothing does."""
        raise NotImplementedError

    @staticmethod
    def run(
        value: Tensor, levels: Levels, reference_points: Tensor, offsets: Tensor, logits: Tensor
    ) -> Tensor:
        """Sum over levels and points of weight times the bilinear value at the location.

        The location is the query's reference point, (x, y) in [0, 1], plus its offset, in pixels
        of the level; values beyond the border are zero. The weights are the softmax of the logits
        over levels and points. Both are counted in float32 at least, whatever the type of the
        values, which is the result's. Reference points get no gradient.

        Shapes: (B,S,M,D), L levels, (Q,2), (B,Q,M,L,P,2), (B,Q,M,L,P) -> (B,Q,M*D)
        """
        raise NotImplementedError


def check_name(name: str) -> None:
    """
    Raises:
        ValueError: no op is called so.
    """
    known = ["auto", *(op for op, _ in MS_DEFORM_ATTN_REGISTRY)]
    if name not in known:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.MS_DEFORM_ATTN={name!r}; set it to {', '.join(known)}"
        )


@functools.cache  # so the choice is made, and logged, once a process
def build_ms_deform_attn(name: str, device_type: str) -> type[MSDeformAttnOp]:
    """The op called `name` in the registry; "auto": the fastest that runs on the device type.

    Raises:
        ValueError: there is no such op, or it does not run there.
    """
    check_name(name)
    ops: dict[str, type[MSDeformAttnOp]] = dict(MS_DEFORM_ATTN_REGISTRY)
    if name == "auto":
        refusals = {known: op.why_not(device_type) for known, op in ops.items()}
        usable = [known for known in ops if not refusals[known]]
        name = max(usable, key=lambda known: ops[known].rank(device_type))
        others = [f"not {known}: {why}" for known, why in refusals.items() if why]
        reason = "; ".join(["the fastest that runs there", *others])
    elif refusal := ops[name].why_not(device_type):  # the others are not asked: it may take seconds
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.MS_DEFORM_ATTN={name!r} does not run on {device_type} "
            f"({refusal}); set the key to auto"
        )
    else:
        reason = "as configured"
    logger.info("Deformable attention on %s: %s (%s)", device_type, name, reason)
    return ops[name]
