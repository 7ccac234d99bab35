"""Judge saved predictions without the model: python tools/evaluate_predictions.py
    --config-file CONFIG --predictions DIR [--json FILE] [KEY VALUE ...]

DIR is what an evaluation with TEST.SAVE_PREDICTIONS True has left in OUTPUT_DIR/inference, or has
predictions of another program in the same formats (docs/evaluation.md). Judged is what is there,
of each dataset in the config's DATASETS.TEST, by the config's TEST.EVALUATOR.
"""

import argparse
import os
from collections import OrderedDict
from pathlib import Path

from mask2former.config import load_config, validate_config
from mask2former.data.own import derive_from_data
from mask2former.engine.launch import fail, interrupted
from mask2former.engine.output import open_console
from mask2former.engine.run import summary
from mask2former.engine.trainer import write_results
from mask2former.engine.user_errors import CANDIDATES, user_sentence
from mask2former.evaluation.predictions.judge import judge_predictions


def evaluate(args: argparse.Namespace) -> dict:
    """The results, as those of an evaluation of the model: of several datasets by their names."""
    cfg = load_config(args.config_file, args.opts)
    derive_from_data(cfg, eval_only=True)
    validate_config(cfg, eval_only=True)
    cfg.freeze()
    results = OrderedDict(
        (name, judge_predictions(cfg, name, args.predictions, not args.quiet))
        for name in cfg.DATASETS.TEST
    )
    return results if len(results) > 1 else next(iter(results.values()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="CONFIG")
    parser.add_argument("--predictions", required=True, type=Path, metavar="DIR")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there, as results.json")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    open_console()
    try:
        results = evaluate(args)
    except CANDIDATES as error:
        sentence = user_sentence(error)
        if sentence is None:
            raise
        fail(sentence)
    except KeyboardInterrupt:
        interrupted("")
    if args.json:
        write_results(results, os.path.abspath(args.json))
    print(f"Validation: {summary(results)}")


if __name__ == "__main__":
    main()
