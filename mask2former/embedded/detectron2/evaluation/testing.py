"""What is done with results: print them, compare them with expected ones, flatten them."""

from __future__ import annotations

import logging
import math
import pprint
import sys
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log the metrics of each task as two comma-separated lines: names, then numbers.

    Metrics of single classes, which have a "-" in their name, are left out.
    """
    logger = logging.getLogger(__name__)
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            logger.info(f"copypaste: {task}={metrics}")
            continue
        overall = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info(f"copypaste: Task: {task}")
        logger.info("copypaste: " + ",".join(overall))
        logger.info("copypaste: " + ",".join(f"{value:.4f}" for value in overall.values()))


def verify_results(cfg: CfgNode, results: Mapping[str, Mapping[str, float]]) -> bool:
    """Compare with cfg.TEST.EXPECTED_RESULTS, a list of [task, metric, expected, tolerance].

    Ends the program with exit code 1 if a metric is missing, not finite, or too far off.
    """
    expected_results = cfg.TEST.EXPECTED_RESULTS
    if not len(expected_results):
        return True
    logger = logging.getLogger(__name__)
    wrong = []
    for task, metric, expected, tolerance in expected_results:
        actual = results[task].get(metric)
        if actual is None or not math.isfinite(actual) or abs(actual - expected) > tolerance:
            wrong.append(f"{task}/{metric} is {actual}, expected {expected} +- {tolerance}")
    if wrong:
        logger.error("Not as expected: " + "; ".join(wrong))
        logger.error("All results: " + pprint.pformat(results))
        sys.exit(1)
    logger.info("All expected results are met.")
    return True


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": {"c": 1}}} -> {"a/b/c": 1}."""
    flat = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            inner = flatten_results_dict(value)
            flat.update({f"{name}/{key}": number for key, number in inner.items()})
        else:
            flat[name] = value
    return flat
