"""Training and evaluation on any device: what joins the model, the data and the evaluators."""

from mask2former.engine.checkpoint import Checkpointer
from mask2former.engine.launch import launch
from mask2former.engine.run import argument_parser, main, setup
from mask2former.engine.trainer import Trainer

__all__ = ["Checkpointer", "Trainer", "argument_parser", "launch", "main", "setup"]
