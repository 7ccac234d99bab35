"""From a Swin Transformer as its authors publish it to a file that any detectron2 loads.

python tools/convert-pretrained-swin-model-to-d2.py swin_tiny.pth swin_tiny.pkl

This project needs no conversion: MODEL.WEIGHTS takes the .pth file as it is.
"""

from mask2former.engine.weight_conversion import conversion_command

if __name__ == "__main__":
    conversion_command(__doc__, "Swin-Transformer")
