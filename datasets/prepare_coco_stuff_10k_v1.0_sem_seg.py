"""Make pictures and label maps by split from the unpacked download of COCO-Stuff-10k.

python datasets/prepare_coco_stuff_10k_v1.0_sem_seg.py [ROOT] [--workers N]

ROOT holds images/, annotations/ and imageLists/. Added: images_detectron2/{train,test}/ and
annotations_detectron2/{train,test}/. What is there and whole is kept, so an interrupted run is
started again by the same command. The annotations of version 1.0 need h5py.
"""

from mask2former.data.prepare.coco_stuff_10k import prepare_coco_stuff_10k
from mask2former.data.prepare.command import prepare_command

if __name__ == "__main__":
    prepare_command(prepare_coco_stuff_10k, __doc__, "coco/coco_stuff_10k")
