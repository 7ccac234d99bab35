"""Make the JSONs that instance segmentation on ADE20K reads from its unpacked downloads.

python datasets/prepare_ade20k_ins_seg.py [ROOT] [--workers N]

ROOT, ADEChallengeData2016, holds images/ and annotations_instance/. Added:
ade20k_instance_{train,val}.json, in COCO's format. What is there and whole is kept, so an
interrupted run is started again by the same command.
"""

from mask2former.data.datasets.ade20k import DIRECTORY
from mask2former.data.prepare.ade20k import prepare_ade20k_instances
from mask2former.data.prepare.command import prepare_command

if __name__ == "__main__":
    prepare_command(prepare_ade20k_instances, __doc__, DIRECTORY)
