"""Every config key that this project adds to detectron2's, with its meaning.

`add_maskformer2_config` is the official function of this name: official scripts and YAML files
work unchanged. Keys marked *new* are ours; each of them is off, or neutral, by default.
"""

from detectron2.config import CfgNode as CN


def add_maskformer2_config(cfg: CN) -> None:
    """Add the keys of MaskFormer and Mask2Former to detectron2's defaults, in place."""
    # new: of a user's own data (docs/own_data.md); []: the names that stand with the data
    cfg.DATASETS.CLASS_NAMES = []
    # new: in training, a process names this many broken samples (picture or label) in the log and
    # takes others in their place; one more, or any in an evaluation, ends the run
    cfg.DATALOADER.MAX_BAD_SAMPLES = 0
    _add_input(cfg)
    _add_solver(cfg)
    _add_mask_former(cfg)
    _add_pixel_decoder(cfg)
    _add_resnet(cfg)
    _add_swin(cfg)
    # new: inference in mixed precision, all of the network; DTYPE as SOLVER.AMP.DTYPE
    cfg.TEST.AMP = CN({"ENABLED": False, "DTYPE": "auto"})
    # new: fast, our own evaluators, or reference, the tools whose numbers they give: pycocotools,
    # panopticapi, cityscapesscripts and detectron2's SemSegEvaluator
    cfg.TEST.EVALUATOR = "fast"
    # new: keep what an evaluation judges (docs/evaluation.md): in OUTPUT_DIR/inference/predictions
    cfg.TEST.SAVE_PREDICTIONS = False
    # new: torch.compile backbone and head, for images of all sizes; the first steps take minutes
    cfg.MODEL.COMPILE = False
    cfg.MODEL.DEVICE = "auto"  # new value: sdaa, cuda, mps, cpu, the first that is there
    # new: print the lines of model zoos (TCAPPDLL ...) as well; log.txt has them in any case
    cfg.MODEL_ZOO_LOG = False


def _add_input(cfg: CN) -> None:
    # One mapper serves all tasks; the official names select its target builder and recipe.
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    cfg.INPUT.COLOR_AUG_SSD = False  # SSD's photometric distortion
    # A random crop is drawn again (10 times at most) while one class covers more than this share.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    cfg.INPUT.SIZE_DIVISIBILITY = -1  # pad training images to a multiple of this; -1: do not pad
    # new: no targets for objects and segments that a crop has cut away entirely. The official
    # mappers keep them as empty masks, except coco_instance_lsj, which drops them in any case.
    cfg.INPUT.DROP_EMPTY_MASKS = False
    # Large-scale jitter (the coco_* mappers): resize by MIN..MAX_SCALE, then crop IMAGE_SIZE.
    cfg.INPUT.IMAGE_SIZE = 1024
    cfg.INPUT.MIN_SCALE = 0.1
    cfg.INPUT.MAX_SCALE = 2.0


def _add_solver(cfg: CN) -> None:
    cfg.SOLVER.OPTIMIZER = "ADAMW"  # or SGD
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1  # learning rate of the backbone, relative to BASE_LR
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0  # of embeddings and position tables
    cfg.SOLVER.POLY_LR_POWER = 0.9
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.0
    # new: optimizer steps once in this many batches; each batch has IMS_PER_BATCH / STEPS images
    cfg.SOLVER.ACCUMULATE_STEPS = 1
    # new: float16, bfloat16, or auto: the device's own choice
    cfg.SOLVER.AMP.DTYPE = "auto"
    # new: BASE_LR, MAX_ITER and what else counts iterations are meant for REFERENCE_IMS_PER_BATCH
    # images an iteration; with AUTO_SCALE they are scaled to IMS_PER_BATCH
    cfg.SOLVER.AUTO_SCALE = False
    cfg.SOLVER.REFERENCE_IMS_PER_BATCH = 16
    # new: the run stops once the loss was not finite in this many iterations running
    cfg.SOLVER.MAX_NON_FINITE_STEPS = 5


def _add_mask_former(cfg: CN) -> None:
    node = cfg.MODEL.MASK_FORMER = CN()
    # losses (paper, sec. 3.2)
    node.DEEP_SUPERVISION = True  # a loss at each decoder layer and at the query features
    node.NO_OBJECT_WEIGHT = 0.1
    node.CLASS_WEIGHT = 1.0
    node.DICE_WEIGHT = 1.0
    node.MASK_WEIGHT = 20.0
    node.TRAIN_NUM_POINTS = 112 * 112  # points a mask at which costs and losses are taken
    node.OVERSAMPLE_RATIO = 3.0  # candidates drawn for each importance-sampled point
    node.IMPORTANCE_SAMPLE_RATIO = 0.75  # share of the points drawn by uncertainty
    # new: the cross-entropy's divisor is averaged over the ranks, as that of the masks is
    node.CLASS_NORM_OVER_RANKS = False
    # new: points (Mask2Former's cross-entropy and dice at sampled points) or whole_masks
    # (MaskFormer's focal loss and dice at every pixel)
    node.MASK_LOSS = "points"
    # new: weights of single classes in the class loss, as "NAME=WEIGHT", or ["auto"]: from how many
    # images of the training set show the class
    node.CLASS_WEIGHTS = []
    # transformer decoder
    node.TRANSFORMER_DECODER_NAME = "MultiScaleMaskedTransformerDecoder"
    node.TRANSFORMER_IN_FEATURE = "res5"
    node.NUM_OBJECT_QUERIES = 100
    node.HIDDEN_DIM = 256
    node.NHEADS = 8
    node.DIM_FEEDFORWARD = 2048
    node.DROPOUT = 0.1
    node.ENC_LAYERS = 0
    node.DEC_LAYERS = 6
    node.PRE_NORM = False
    node.ENFORCE_INPUT_PROJ = False
    # new: keep fewer activations of the transformer decoder, and compute them again for backward
    node.USE_CHECKPOINT = False
    node.SIZE_DIVISIBILITY = 32  # images of a batch are padded to a multiple of this
    # inference
    test = node.TEST = CN()
    test.SEMANTIC_ON = True
    test.INSTANCE_ON = False
    test.PANOPTIC_ON = False
    test.OBJECT_MASK_THRESHOLD = 0.0  # panoptic: a query below this class score is dropped
    test.OVERLAP_THRESHOLD = 0.0  # panoptic: a segment less visible than this is dropped
    test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False
    test.SCORE_THRESHOLD = 0.0  # new: instances that score less than this are dropped
    test.PACK_MASKS = False  # new: instances' masks take one bit a pixel, not one byte
    test.BOUNDARY_AP = False  # new: measure instances by Boundary IoU too, where there is COCO's AP


def _add_pixel_decoder(cfg: CN) -> None:
    node = cfg.MODEL.SEM_SEG_HEAD
    node.MASK_DIM = 256  # channels of the pixel feature and of a query's mask embedding
    node.TRANSFORMER_ENC_LAYERS = 0
    node.PIXEL_DECODER_NAME = "BasePixelDecoder"
    node.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = ["res3", "res4", "res5"]
    node.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS = 4
    node.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS = 8
    # new: the deformable-attention op by its name: Native, Triton, EmbeddingBag, Gather, Reference,
    # Tecoops; auto: the fastest that runs on the device, and the log says which, and why no other
    node.MS_DEFORM_ATTN = "auto"
    node.USE_CHECKPOINT = False  # new: as MASK_FORMER.USE_CHECKPOINT, of the pixel decoder


def _add_resnet(cfg: CN) -> None:
    cfg.MODEL.RESNETS.USE_CHECKPOINT = False  # new: as MASK_FORMER.USE_CHECKPOINT, of the ResNet


def _add_swin(cfg: CN) -> None:
    node = cfg.MODEL.SWIN = CN()
    node.PRETRAIN_IMG_SIZE = 224
    node.PATCH_SIZE = 4
    node.EMBED_DIM = 96
    node.DEPTHS = [2, 2, 6, 2]
    node.NUM_HEADS = [3, 6, 12, 24]
    node.WINDOW_SIZE = 7
    node.MLP_RATIO = 4.0
    node.QKV_BIAS = True
    node.QK_SCALE = None
    node.DROP_RATE = 0.0
    node.ATTN_DROP_RATE = 0.0
    node.DROP_PATH_RATE = 0.3
    node.APE = False  # absolute position embedding
    node.PATCH_NORM = True
    node.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    node.USE_CHECKPOINT = False
