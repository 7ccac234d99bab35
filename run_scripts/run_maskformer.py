"""Train MaskFormer, by default R50 on ADE20K: python run_maskformer.py [CONFIG] [options]"""

import model_zoo

if __name__ == "__main__":
    model_zoo.main("configs/maskformer/ade20k-150/maskformer_R50_bs16_160k.yaml")
