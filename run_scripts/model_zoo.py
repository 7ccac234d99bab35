"""What run_mask2former.py and run_maskformer.py share: a model zoo's options, put to train_net.py.

The command line that they stand for is printed, then takes this process's place: signals and exit
status are the run's own.
"""

import argparse
import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import mm_names

TRAIN_NET = str(Path(__file__).resolve().parents[1] / "train_net.py")
LOCALHOST, PORT = "127.0.0.1", 29500  # torch's own defaults


@dataclass
class Command:
    """What is run."""

    words: list[str]
    environment: dict[str, str]  # what is set besides what there is
    notes: list[str] = field(default_factory=list)  # what was translated, for the reader

    def __str__(self) -> str:
        """Lines to paste into a shell."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return "\n".join([*(f"# {n}" for n in self.notes), " ".join([*settings, self.line])])

    @property
    def line(self) -> str:
        return shlex.join(self.words)


def argument_parser(default_config: str) -> argparse.ArgumentParser:
    """The options, those with a dash in their name also with an underscore."""
    parser = argparse.ArgumentParser(
        description="Train: prints the command of train_net.py that this stands for, and runs it."
    )

    def add(name: str, **settings: object) -> None:
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
        parser.add_argument(*spellings, **settings)

    parser.add_argument(
        "config",
        nargs="?",
        help=f"a YAML file, its name in configs/, or one of {mm_names.NAMES_FILE}; "
        f"default: {default_config}",
    )
    parser.add_argument(
        *("--config", "--config-file"),
        dest="config_option",
        metavar="CONFIG",
        help="the same as an option",
    )
    add(
        "launcher",
        choices=("none", "pytorch"),
        default="none",
        help="who starts the processes: train_net.py (the default) or torch.distributed.run",
    )
    add("nproc-per-node", type=_count, default=1, help="processes of a machine, one a device")
    add("nnodes", type=_count, default=1, help="machines")
    add("node-rank", type=int, default=0, help="which of them this is, from 0")
    add("master-addr", help="host of machine 0; to be given if there are several")
    add("master-port", type=int, help=f"of the processes' meeting; several machines: {PORT}")
    add(
        "amp",
        action=argparse.BooleanOptionalAction,
        help="mixed precision, or none (default: as the config says)",
    )
    add("device", help="MODEL.DEVICE: auto (the default), cpu, ...")
    add("work-dir", help="OUTPUT_DIR: where log, metrics, pictures and weights go")
    add("resume", action="store_true", help="go on from the last checkpoint in --work-dir")
    add(
        "cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="config keys, ours or those in mm_names.py",
    )
    add(
        "dry-run",
        action="store_true",
        help="print the command only; train_net.py checks config keys of ours when it runs",
    )
    parser.set_defaults(default_config=default_config)
    return parser


def _count(text: str) -> int:
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}; give a number from 1")
    return int(text)


def build_command(args: argparse.Namespace) -> Command:
    """The command line that the arguments stand for.

    Raises:
        ValueError: in one sentence what is wrong with them and what to do.
    """
    if args.config and args.config_option:
        raise ValueError(f"two configs, {args.config} and {args.config_option}; give one of them")
    given = args.config or args.config_option or args.default_config
    config = mm_names.our_config(given)
    notes = [f"{given} is {config} here"] if config != given else []
    pairs, environment, translated = _settings(args, config)
    words = [*_launcher(args), TRAIN_NET, "--config-file", config, *_processes(args)]
    words += ["--resume"] if args.resume else []
    words += [word for pair in pairs for word in pair]
    return Command([sys.executable, *words], environment, notes + translated)


def _launcher(args: argparse.Namespace) -> list[str]:
    """What stands between python and train_net.py."""
    if args.launcher == "none":
        return []
    words = ["-m", "torch.distributed.run", "--nproc-per-node", str(args.nproc_per_node)]
    if args.nnodes > 1:
        words += ["--nnodes", str(args.nnodes), "--node-rank", str(args.node_rank)]
    elif not _meeting_is_given(args):
        return [*words, "--standalone"]  # a free port
    host, port = _meeting(args)
    return [*words, "--master-addr", host, "--master-port", str(port)]


def _processes(args: argparse.Namespace) -> list[str]:
    """train_net.py's own options for its processes."""
    if args.launcher != "none":
        return []
    words = ["--num-gpus", str(args.nproc_per_node)]
    if args.nnodes > 1:
        words += ["--num-machines", str(args.nnodes), "--machine-rank", str(args.node_rank)]
    elif not _meeting_is_given(args):
        return words
    return [*words, "--dist-url", "tcp://{}:{}".format(*_meeting(args))]


def _meeting_is_given(args: argparse.Namespace) -> bool:
    return bool(args.master_addr or args.master_port)


def _meeting(args: argparse.Namespace) -> tuple[str, int]:
    if args.nnodes > 1 and not args.master_addr:
        raise ValueError(
            f"--nnodes {args.nnodes} without --master-addr; give the host of machine 0"
        )
    return args.master_addr or LOCALHOST, args.master_port or PORT


def _settings(
    args: argparse.Namespace, config: str
) -> tuple[list[tuple[str, str]], dict[str, str], list[str]]:
    """Config keys and values, environment variables, and what was translated."""
    pairs = [("MODEL_ZOO_LOG", "True")]
    if args.amp is not None:
        pairs.append(("SOLVER.AMP.ENABLED", str(args.amp)))
    if args.device:
        pairs.append(("MODEL.DEVICE", args.device))
    if args.work_dir:
        pairs.append(("OUTPUT_DIR", args.work_dir))
    notes = []
    folders: dict[str, str] = {}
    for option in args.cfg_options:
        key, separator, value = option.partition("=")
        if not (key and separator):
            raise ValueError(f"--cfg-options {option!r}; give KEY=VALUE")
        if key in mm_names.DATA_ROOTS:
            folders[option] = mm_names.datasets_folder(key, value, config)
            continue
        pairs.append(mm_names.our_pair(key, value, args.nproc_per_node * args.nnodes))
        if pairs[-1] != (key, value):
            notes.append(f"{option} is {' '.join(pairs[-1])} here")
    distinct = sorted(set(folders.values()))
    if len(distinct) > 1:
        raise ValueError(f"{' and '.join(folders)}; let both lie in one folder")
    return pairs, dict(zip(["DETECTRON2_DATASETS"], distinct)), notes


def main(default_config: str) -> None:
    """Run what the command line says; a mistake in it is one sentence, and exit status 2."""
    parser = argument_parser(default_config)
    args = parser.parse_args()
    try:
        command = build_command(args)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(command, flush=True)
    if not args.dry_run:
        os.execve(sys.executable, command.words, os.environ | command.environment)
