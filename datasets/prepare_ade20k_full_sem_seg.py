"""Make what training on ADE20K with 847 classes reads from its unpacked download.

python datasets/prepare_ade20k_full_sem_seg.py [ROOT] [--workers N]

ROOT, ADE20K_2021_17_01, holds images/ADE/. Added: images_detectron2/, whose shorter sides have at
most 512 pixels, and annotations_detectron2/, 16-bit label maps. What is there and whole is kept,
so an interrupted run is started again by the same command.
"""

from mask2former.data.datasets.ade20k_full import DIRECTORY
from mask2former.data.prepare.ade20k_full import prepare_ade20k_full
from mask2former.data.prepare.command import prepare_command

if __name__ == "__main__":
    prepare_command(prepare_ade20k_full, __doc__, DIRECTORY)
