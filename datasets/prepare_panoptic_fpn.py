"""Make label maps in which all things are one class from COCO's panoptic annotations.

python datasets/prepare_panoptic_fpn.py [ROOT] [--workers N]

ROOT holds annotations/panoptic_{train,val}2017.json and panoptic_{train,val}2017/, or one split of
them. Added: panoptic_stuff_{train,val}2017/, for the datasets *_separated and *_stuffonly. What is
there and whole is kept, so an interrupted run is started again by the same command.
"""

from mask2former.data.prepare.coco import prepare_coco_stuff
from mask2former.data.prepare.command import prepare_command

if __name__ == "__main__":
    prepare_command(prepare_coco_stuff, __doc__, "coco")
