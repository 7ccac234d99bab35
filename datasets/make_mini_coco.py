"""Draw and prepare small streets in the layout of COCO 2017, with COCO-Stuff-10k in it.

python datasets/make_mini_coco.py [ROOT] [--size 256 384] [--train 64] [--val 12]

Makes ROOT/coco. Training reads it instead of the real one with DETECTRON2_DATASETS=ROOT.
"""

from mask2former.data.mini.coco import DEFAULT_SPEC, make_mini_coco
from mask2former.data.mini.command import mini_command

if __name__ == "__main__":
    mini_command([make_mini_coco], __doc__, DEFAULT_SPEC)
