"""Draw small streets in the layout of Mapillary Vistas v1.2.

python datasets/make_mini_mapillary_vistas.py [ROOT] [--size 192 256] [--train 32] [--val 8]

Makes ROOT/mapillary_vistas. Training reads it instead of the real one with
DETECTRON2_DATASETS=ROOT.
"""

from mask2former.data.mini.command import mini_command
from mask2former.data.mini.mapillary_vistas import make_mini_mapillary_vistas

if __name__ == "__main__":
    mini_command([make_mini_mapillary_vistas], __doc__)
