"""Draw mini Cityscapes: small streets in the layout of the real downloads.

python datasets/make_mini_cityscapes.py [ROOT] [--size 256 512] [--train 64] [--val 12] [--seed 0]

What training reads besides is added by datasets/prepare_cityscapes.py, as with the real one.
Training on a mini_* dataset does both by itself if it is absent.
"""

from mask2former.data.mini.cityscapes import DEFAULT_SPEC, make_mini_cityscapes
from mask2former.data.mini.command import mini_command

if __name__ == "__main__":
    mini_command(
        [make_mini_cityscapes],
        __doc__,
        DEFAULT_SPEC,
        directory="mini_cityscapes",
        done="{root} is drawn; now: python datasets/prepare_cityscapes.py {root}",
    )
