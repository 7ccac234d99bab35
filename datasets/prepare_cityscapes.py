"""Make what training reads from the unpacked downloads of Cityscapes.

python datasets/prepare_cityscapes.py [ROOT] [--workers N]

ROOT holds leftImg8bit/ and gtFine/. Added to gtFine/: *_labelTrainIds.png beside each polygons
file, and cityscapes_panoptic_{train,val}/ with a JSON each. What is there and whole is kept, so
an interrupted run is started again by the same command.
"""

from mask2former.data.prepare.cityscapes import prepare_cityscapes
from mask2former.data.prepare.command import prepare_command

if __name__ == "__main__":
    prepare_command(prepare_cityscapes, __doc__, "cityscapes")
