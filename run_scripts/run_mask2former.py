"""Train Mask2Former, by default R50 on Cityscapes: python run_mask2former.py [CONFIG] [options]"""

import model_zoo

if __name__ == "__main__":
    model_zoo.main("configs/cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml")
