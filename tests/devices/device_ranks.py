"""train_net.py, whose processes write at the end whether their weights are equal: ranks.json."""

import hashlib
import json
from pathlib import Path

import mask2former.engine.run
from mask2former.engine import Trainer, argument_parser, main

from detectron2.utils import comm  # isort: skip


def digest(model):
    """Of all parameters and buffers."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode() + tensor.cpu().numpy().tobytes())
    return found.hexdigest()


class ComparingTrainer(Trainer):
    def after_train(self):
        super().after_train()
        device = next(self.model.parameters()).device
        ranks = comm.gather((str(device), digest(self.model)))
        if comm.is_main_process():
            Path(self.cfg.OUTPUT_DIR, "ranks.json").write_text(json.dumps(ranks))


# Not below: the processes that are started import this file.
mask2former.engine.run.Trainer = ComparingTrainer

if __name__ == "__main__":
    main(argument_parser().parse_args())
