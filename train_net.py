"""Train or evaluate: python train_net.py --config-file CONFIG [--num-gpus N] [KEY VALUE ...]"""

import mask2former.engine

if __name__ == "__main__":
    mask2former.engine.main(mask2former.engine.argument_parser().parse_args())
