"""From a ResNet of torchvision to a file that any detectron2 loads.

python tools/convert-torchvision-to-d2.py resnet50.pth resnet50.pkl

This project needs no conversion: MODEL.WEIGHTS takes the .pth file as it is.
"""

from mask2former.engine.weight_conversion import conversion_command

if __name__ == "__main__":
    conversion_command(__doc__, "torchvision")
