"""Make the label maps that training on ADE20K reads from its unpacked download.

python datasets/prepare_ade20k_sem_seg.py [ROOT] [--workers N]

ROOT, ADEChallengeData2016, holds annotations/. Added: annotations_detectron2/, in which classes
count from 0, and 255 is no class. What is there and whole is kept, so an interrupted run is
started again by the same command.
"""

from mask2former.data.datasets.ade20k import DIRECTORY
from mask2former.data.prepare.ade20k import prepare_ade20k_semantic
from mask2former.data.prepare.command import prepare_command

if __name__ == "__main__":
    prepare_command(prepare_ade20k_semantic, __doc__, DIRECTORY)
