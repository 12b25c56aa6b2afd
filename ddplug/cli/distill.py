"""``ddplug distill METHOD``: distill a data set and save the synthetic set."""

from __future__ import annotations

import argparse
import math
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ddplug.cli import described
from ddplug.cli.commands import Answer
from ddplug.cli.config import check_known, other_data, read_config, with_config
from ddplug.cli.data import (
    add_data_options,
    add_precision_option,
    add_run_options,
    add_shard_option,
    data_words,
    load,
    tell,
)
from ddplug.cli.outputs import check_outputs, save, saying_how_to_go_on
from ddplug.errors import OptionError
from ddplug.utils.arguments import Parser, add_options, given_fields, number, quantity
from ddplug.utils.arguments import path as as_path
from ddplug.utils.streams import complain
from ddplug.utils.teams import team
from ddplug.utils.text import command, shown, table

if TYPE_CHECKING:
    from ddplug.data.labeled import LabeledData
    from ddplug.distillation.callbacks import Callback
    from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["configure", "run"]

_SIZE = quantity("a size", {"B": 1, "kB": 1e3, "MB": 1e6, "KiB": 2**10, "MiB": 2**20})

_TIMES = {"s": 1, "m": 60, "h": 3600}

_LONG = 120.0
"""Seconds from which on ``auto`` says beforehand how long it may take."""

_PREPARING = (
    *("pool_size", "networks", "num_experts", "teacher_epochs", "train_epochs", "train_steps", "candidates"),
    *("max_samples_per_class", "network"),
)
"""Options that say how long a method prepares."""

_STEPPING = ("steps", "epochs", "inner_loop", "syn_steps", "batch_real", "images_per_class", "network")
"""Options that say how long its steps take."""

AUTO = "auto"
"""In the place of a method's name: choose one."""


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the common options, and those of the method, which comes first unless a file names it."""
    parser.usage = "ddplug distill METHOD --data NAME -o FILE [options]"
    config = read_config(argv)
    argv = with_config(argv, config)
    method = described.method(argv[0]) if argv and not argv[0].startswith("-") and argv[0] != AUTO else None
    _add_common(parser, set() if method is None else {f"--{option.name}" for option in method.options})
    rest = _configure_any(parser, argv) if method is None else _configure_method(parser, argv, method)
    check_known(parser, config)
    parser.set_defaults(read_config=config)
    return rest


def _configure_any(parser: Parser, argv: list[str]) -> list[str]:
    """Add what there is without a method; return the words that are left."""
    if argv and argv[0] in ("-h", "--help"):
        parser.epilog = (
            "`ddplug list` shows the methods.\n"
            "`ddplug distill METHOD --help` lists the options of one.\n"
            "`ddplug distill auto` chooses a method.\n"
            "`ddplug distill --config SET -o FILE` makes a set again."
        )
        return argv
    if argv and argv[0] == AUTO:
        return _configure_auto(parser, argv[1:])
    raise OptionError("the method comes first: ddplug distill METHOD --data NAME -o FILE (see `ddplug list`)")


def _configure_method(parser: Parser, argv: list[str], method: described.Described) -> list[str]:
    """Add the options of the method; return the words that are left."""
    parser.prog = f"ddplug distill {argv[0]}"
    parser.usage = f"{parser.prog} --data NAME -o FILE [options]"
    parser.description = method.about
    parser.set_defaults(name=argv[0], method=method)
    parser.add_argument("--preset", metavar="NAME", help="use published options; options that you give override them")
    parser.add_argument(
        "--quantize", "--quantise", action="store_true", help="short for --codec plain: a byte per number, not four"
    )
    parser.add_argument(
        "--bits",
        type=_bits,
        metavar="N",
        help="short for --codec plain:bits=N: the numbers of images in 1, 2, 4 or 8 bits each",
    )
    parser.add_argument(
        "--reduced",
        type=_factor,
        default=1,
        metavar="N",
        help="short for --codec plain:factor=N: images reduced N times, by averaging; methods that learn have --factor "
        "for it (default: 1)",
    )
    _add_storage(parser)
    group = parser.add_argument_group(f"options of {argv[0]}", f"presets: {', '.join(method.presets) or 'none'}")
    try:
        add_options(group, method.options)
    except argparse.ArgumentError as error:
        raise OptionError(f"the fields of method {argv[0]!r} cannot be made options: {error}; rename them") from None
    return argv[1:]


def _bits(text: str) -> int:
    """Read the bits of a number."""
    from ddplug.functional.packing import BITS

    value: int = number(int, 1)(text)
    if value not in BITS:
        raise argparse.ArgumentTypeError(f"is {value}; it must be one of {', '.join(map(str, BITS))}")
    return value


def _factor(text: str) -> int:
    """Read by how much images are made smaller."""
    from ddplug.functional.resize import MAX_FACTOR

    value: int = number(int, 1, MAX_FACTOR)(text)
    return value


def _add_storage(parser: Parser) -> None:
    """Add the bytes and the codec."""
    parser.add_argument(
        "--bytes",
        type=_SIZE,
        metavar="SIZE",
        help="size of the set, e.g. 20kB; replaces --images-per-class: as many images as fit are made",
    )
    parser.add_argument(
        "--codec",
        metavar="SPEC",
        help="how to store the images, e.g. avif:quality=15; auto, the default with --bytes, chooses by the data; see "
        "`ddplug list`",
    )


def _configure_auto(parser: Parser, argv: list[str]) -> list[str]:
    """Add the budget, instead of a method's options."""
    parser.prog = f"ddplug distill {AUTO}"
    parser.usage = f"{parser.prog} --data NAME -o FILE [options]"
    parser.description = "Choose codec, method and number of images by measured rules, for a time and a size; distill."
    parser.set_defaults(name=AUTO, method=None, preset=None)
    group = parser.add_argument_group("the budget")
    group.add_argument(
        "--budget",
        type=quantity("a time", _TIMES),
        default=300.0,
        metavar="TIME",
        help="time that distilling may take, e.g. 90s, 5m or 1.5h (default: 5m)",
    )
    group.add_argument(
        "--bytes",
        type=_SIZE,
        default=20e3,
        metavar="SIZE",
        help="size that the set may have (default: 20kB)",
    )
    group.add_argument(
        "--no-real", action="store_true", help="do not store real images, which may show people or secrets"
    )
    return argv


def _add_common(parser: Parser, taken: set[str]) -> None:
    add_data_options(parser, taken)
    add_run_options(parser)
    parser.add_argument(
        "-o", "--output", type=as_path, required=True, metavar="FILE", help="the .safetensors file to write"
    )
    group = parser.add_argument_group("the run")
    group.add_argument(
        "--config",
        type=as_path,
        metavar="FILE",
        help="take method and options from a set or a .toml file; options that you give override them",
    )
    group.add_argument(
        "--checkpoint",
        type=as_path,
        metavar="FILE",
        help="keeps the state of the run; removed when it is done (default: next to the output)",
    )
    group.add_argument(
        "--checkpoint-every",
        type=quantity("a time", _TIMES, least=0),
        default=30.0,
        metavar="TIME",
        help="time between checkpoints, e.g. 10s or 5m; 0 for after each step (default: 30s)",
    )
    add_precision_option(group, "the networks")
    add_shard_option(group, "make only every N-th class, starting with the K-th; `ddplug merge` joins the shards")
    group.add_argument("--no-resume", action="store_true", help="start over even if there is a checkpoint")
    group.add_argument("--csv", type=as_path, metavar="FILE", help="write the metrics of every step to a CSV file")
    group.add_argument("--tensorboard", type=as_path, metavar="DIR", help="write TensorBoard events")


class _Plan(NamedTuple):
    """What to distill with.

    Attributes:
        method: the method with all its options.
        codec: that is to hold the images; ``None`` for float32, or what suits the data where there are bytes.
        nbytes: that the set may take.
    """

    method: Any
    codec: str | None = None
    nbytes: int | None = None


def _given(arguments: argparse.Namespace) -> _Plan | None:
    """Build the method: its defaults, then the preset, then what was given; ``None`` where it is to be chosen."""
    if arguments.method is None:
        return None
    from ddplug import registry

    method, given = registry.resolve("distiller", arguments.name), given_fields(arguments)
    _check_storage(arguments, given)
    if arguments.preset is not None:
        from ddplug.distillers import presets

        given = {**presets.get(arguments.name, arguments.preset), **given}
    nbytes = None if arguments.bytes is None else int(arguments.bytes)
    return _Plan(method(**given), arguments.codec or _short(arguments), nbytes)


def _short(arguments: argparse.Namespace) -> str | None:
    """Return the codec that --quantize, --bits and --reduced are short for."""
    from ddplug.synthetic.codecs.plain import FLOAT, Plain
    from ddplug.synthetic.codecs.protocol import spec_of

    bits = arguments.bits or (8 if arguments.quantize else None)
    if bits is None and arguments.reduced == 1:
        return None
    return spec_of(Plain(bits or FLOAT, arguments.reduced))


def _check_storage(arguments: argparse.Namespace, given: dict[str, Any]) -> None:
    """Refuse to store a set in two ways, and to make two numbers of images."""
    from ddplug.synthetic.codecs.protocol import spec_of

    if arguments.shard != (1, 1) and (arguments.quantize or arguments.bits is not None):
        raise OptionError(
            "--bits and --quantize do not go with --shard, since their levels are those of a whole set; leave them out"
        )
    asked = {"--bits": arguments.bits, "--quantize": arguments.quantize, "--reduced": arguments.reduced > 1}
    others = [name for name, value in asked.items() if value]
    if arguments.codec is not None and others:
        raise OptionError(
            f"{others[0]} does not go with --codec: it is short for --codec {_short(arguments)}; leave one of them out"
        )
    if arguments.bytes is not None and "images_per_class" in given:
        raise OptionError("--bytes and --images-per-class both say how many images to make; leave one of them out")
    if arguments.codec not in (None, "auto"):
        spec_of(arguments.codec)


def _callbacks(arguments: argparse.Namespace) -> list[Callback]:
    from ddplug.distillation import callbacks
    from ddplug.utils.forecast import Forecast

    found: list[Callback] = [callbacks.ProgressBar(), Forecast(partial(_foretold, arguments))]
    if arguments.csv:
        found.append(callbacks.CsvLog(arguments.csv))
    if arguments.tensorboard:
        found.append(callbacks.TensorBoardLog(arguments.tensorboard))
    return found


def _foretold(arguments: argparse.Namespace, part: str, seconds: float) -> None:
    """Say how long it takes, and what would take less."""
    from ddplug.utils.text import roughly

    what, whole = (f"preparing ({part})", "") if part else ("distilling", " in all")
    tell(f"{arguments.name}: {what} takes about {roughly(seconds)}{whole}; {_shorter(arguments, part)}")


def _shorter(arguments: argparse.Namespace, part: str) -> str:
    """Say what would take less."""
    if arguments.method is None:
        return "a smaller --budget takes less"
    fields = {option.name for option in arguments.method.options}
    named = [f"--{name.replace('_', '-')}" for name in (_PREPARING if part else _STEPPING) if name in fields]
    smaller = f"a smaller {' or '.join([', '.join(named[:-1]), named[-1]])} takes less, and " if len(named) > 1 else ""
    return f"{smaller}`ddplug distill {AUTO} --budget 5m` takes what fits a time"


def run(arguments: argparse.Namespace) -> Answer:
    """Distill, save, and remove the checkpoint."""
    from ddplug.utils.files import check_space
    from ddplug.utils.locks import locked

    checkpoint = arguments.checkpoint or f"{arguments.output}.checkpoint"
    with saying_how_to_go_on(checkpoint):
        plan = _given(arguments)
        check_outputs(arguments, checkpoint)
        with locked(arguments.output):
            data = load(arguments, "train")
            differ = other_data(arguments.read_config, data.fingerprint)
            if differ is not None:
                complain(differ)
            plan = plan or _chosen(arguments, data, checkpoint)
            check_space(arguments.output, _least_bytes(plan, data))
            synthetic = _distill(arguments, data, plan, checkpoint)
            if not team().leads:
                return Answer({}, "")
            save(synthetic, arguments.output, checkpoint)
            with suppress(FileNotFoundError):
                os.unlink(checkpoint)
    return _answer(arguments, synthetic)


def _least_bytes(plan: _Plan, data: LabeledData) -> int:
    """Count the bytes that the images of the set take at the least; 0 where a codec foresees what it may."""
    from ddplug.distillation.storage import storage_for
    from ddplug.synthetic.codecs.plain import FLOAT, Plain
    from ddplug.synthetic.codecs.protocol import codec_of

    if plan.nbytes is not None:
        return plan.nbytes
    storage = storage_for(data, plan.codec, None)
    codec = Plain(FLOAT) if storage is None else codec_of(storage.codec)
    if not isinstance(codec, Plain):
        return 0
    numbers = plan.method.images_per_class * data.num_classes * math.prod(data.shape) // codec.factor**2
    return int(numbers) * codec.bits // 8


def _chosen(arguments: argparse.Namespace, data: LabeledData, checkpoint: str) -> _Plan:
    """Choose for the budget, or go on with what was chosen before; say so before the work begins."""
    from ddplug import auto
    from ddplug.utils.text import duration, roughly

    kept = None if arguments.no_resume or not os.path.exists(checkpoint) else checkpoint
    if kept is not None:
        choice = auto.resumed(kept, data, int(arguments.bytes), real=not arguments.no_real)
    else:
        if arguments.budget >= _LONG:
            complain(f"auto: choosing and distilling take up to {roughly(arguments.budget)} (--budget)")
        choice = auto.choose(
            data,
            seconds=arguments.budget,
            nbytes=int(arguments.bytes),
            real=not arguments.no_real,
            device=arguments.device,
        )
        if choice.declined is not None:
            name, seconds = choice.declined
            needed = f"would take about {duration(seconds)}, more than is left of {duration(arguments.budget)}"
            complain(f"auto: {name}, the next better method, {needed}; allow a longer --budget")
    how = "continues with" if kept else f"expects {duration(choice.seconds)} with"
    complain(f"auto: {how} ddplug distill {auto.as_options(choice)}")
    return _Plan(choice.distiller, choice.codec, choice.nbytes)


def _distill(arguments: argparse.Namespace, data: LabeledData, plan: _Plan, checkpoint: str) -> SyntheticSet:
    from ddplug.distillation.loop import distill
    from ddplug.utils.devices import pick_device

    device = pick_device(arguments.device)
    return distill(
        data,
        plan.method,
        nbytes=plan.nbytes,
        codec=plan.codec,
        seed=arguments.seed,
        device=device,
        callbacks=_callbacks(arguments),
        checkpoint=checkpoint,
        resume=not arguments.no_resume,
        checkpoint_every=arguments.checkpoint_every,
        shard=arguments.shard,
        precision=arguments.precision,
    )


def _answer(arguments: argparse.Namespace, synthetic: SyntheticSet) -> Answer:
    from ddplug.synthetic.export import inspect
    from ddplug.synthetic.statement import in_words

    values = {"file": arguments.output, **inspect(synthetic), "file_bytes": Path(arguments.output).stat().st_size}
    made = synthetic.provenance
    spent = f", {made['seconds']:.1f} s" if "seconds" in made else ""
    rows = [
        ("saved", arguments.output),
        ("method", f"{made['method']}, {made['steps']} steps{spent} on {made['device']}"),
        ("holds", f"{len(synthetic)} samples of {synthetic.num_classes} classes in {synthetic.nbytes} bytes"),
        ("bits per class", f"{synthetic.bits_per_class:,.0f}"),
    ]
    if values["privacy"] is not None:
        rows.append(("privacy", in_words(values["privacy"])))
    if synthetic.codec is not None:
        nearness = f", {made['psnr']:.1f} dB" if "psnr" in made else ""
        rows.append(("codec", f"{synthetic.codec}{nearness}"))
    learned = "training" in made
    if synthetic.codec is not None and learned:  # 1.0 point of ten soft-labeled MNIST images, 7.1 of five
        rows.append(("careful", "rounding can cost sets with a learned training many points: compare without"))
    protocol = ["--protocol", "learned"] if learned else []
    if "shard" in made:
        rows.append(("shard", "{} of {}; next: ddplug merge FILE... -o FILE, with all of them".format(*made["shard"])))
        return Answer(values, table(rows))
    rows.append(("next", command("ddplug", "evaluate", shown(arguments.output), *data_words(arguments), *protocol)))
    return Answer(values, table(rows))
