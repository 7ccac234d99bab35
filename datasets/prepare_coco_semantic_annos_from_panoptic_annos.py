"""Make label maps of 133 classes from COCO's panoptic annotations.

python datasets/prepare_coco_semantic_annos_from_panoptic_annos.py [ROOT] [--workers N]

ROOT holds annotations/panoptic_{train,val}2017.json and panoptic_{train,val}2017/, or one split of
them. Added: panoptic_semseg_{train,val}2017/. What is there and whole is kept, so an interrupted
run is started again by the same command.
"""

from mask2former.data.prepare.coco import prepare_coco_semantic
from mask2former.data.prepare.command import prepare_command

if __name__ == "__main__":
    prepare_command(prepare_coco_semantic, __doc__, "coco")
