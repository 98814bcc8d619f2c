"""The options of `detect` and `eval` that have the work done by Ray's actors."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from retinart.cli.running import detector_settings
from retinart.engine.errors import BadInput

if TYPE_CHECKING:
    from retinart.engine.cluster.actor import ActorSettings
    from retinart.engine.cluster.pool import PoolSettings


def add_ray(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    from retinart.engine.cluster.session import HERE

    group = parser.add_argument_group("many machines")
    group.add_argument(
        "--ray",
        nargs="?",
        const=HERE,
        type=_address,
        metavar="HOST:PORT",
        help="detect in actors of the Ray cluster with this head node; every node finds the model "
        "and the pictures under the same paths. Without an address: of RAY_ADDRESS's "
        "cluster, or of a Ray that is started here (default: detect in this process)",
    )
    group.add_argument(
        "--ray-cpus",
        type=int,
        metavar="N",
        help="CPUs and threads of an actor (default: all of the smallest node's, at most 8)",
    )


def _address(text: str) -> str:
    """The word after `--ray`; a source that stands there is named as one."""
    from retinart.engine.cluster.session import HERE
    from retinart.engine.common.address import Address

    try:
        _ = text == HERE or "://" in text or Address.parse(text)
    except BadInput as error:
        fix = "put the source before this option"
        if ":" in text:
            fix = f"{error.why}{'; ' if error.why else ''}give one such as 10.0.0.1:6379"
        raise argparse.ArgumentTypeError(f"{text!r} is not a head node's address: {fix}") from None
    return text


def check_ray(args: argparse.Namespace, refused: Iterable[tuple[str, Any]]) -> bool:
    """Whether Ray does the work.

    Args:
        refused: options that Ray's actors cannot serve, by name, and their defaults.

    Raises:
        BadInput: one is given, or an option of Ray without it.
    """
    if args.ray is None:
        if args.ray_cpus is not None:
            raise BadInput("--ray-cpus is for --ray", fix="Give --ray, or leave it out")
        return False
    for name, default in (*refused, ("threads", None)):
        if getattr(args, name) != default:
            flag = "--" + {"sinks": "sink"}.get(name, name).replace("_", "-")
            fix = "Give --ray-cpus instead" if name == "threads" else f"Leave out {flag} or --ray"
            raise BadInput(f"{flag} and --ray exclude each other", fix=fix)
    return True


def on_ray(args: argparse.Namespace, **more: Any) -> tuple[ActorSettings, PoolSettings]:
    """What the actors load, and how many there are.

    Args:
        more: arguments of `Detector` that are not options.
    """
    from retinart.engine.cluster.actor import ActorSettings
    from retinart.engine.cluster.pool import PoolSettings
    from retinart.engine.tensorrt.engine_file import is_engine

    settings = detector_settings(args, **more)
    del settings["threads"]
    device = (args.device or "").lower()
    gpu = is_engine(args.model) or device.startswith(("cuda", "tensorrt"))
    actor = ActorSettings(
        model=args.model.absolute(), detector=settings, max_pixels=args.max_pixels
    )
    return actor, PoolSettings(cpus=args.ray_cpus, gpus=int(gpu))
