"""Draw and prepare small streets in the layout of ADE20K: 150 classes, and 847.

python datasets/make_mini_ade20k.py [ROOT] [--size 192 256] [--train 32] [--val 8]

Makes ROOT/ADEChallengeData2016 and ROOT/ADE20K_2021_17_01. Training reads them instead of the
real ones with DETECTRON2_DATASETS=ROOT.
"""

from mask2former.data.mini.ade20k import make_mini_ade20k, make_mini_ade20k_full
from mask2former.data.mini.command import mini_command

if __name__ == "__main__":
    mini_command([make_mini_ade20k, make_mini_ade20k_full], __doc__)
