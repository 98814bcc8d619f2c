"""A connection to Ray: to a cluster by its address, or to a Ray that is started on this machine."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from uuid import uuid4

from retinart.engine.common.address import Address
from retinart.engine.common.cpu_budget import cpu_budget
from retinart.engine.common.packages import import_package
from retinart.engine.errors import BadInput

HERE = "local"  # in place of an address: start a Ray on this machine
AUTH_MODE = "RAY_AUTH_MODE"  # the variable with which Ray's processes send a token, and want one
NICENESS = "RAY_worker_niceness"  # the variable that Ray reads when it starts on a machine
_ANSWER_SECONDS = 10.0  # until a head node answers
_JOIN_SECONDS = 300.0  # until it has let this process in
_STORE_BYTES = 80_000_000  # nearly the least that Ray takes; a shard's results have kilobytes


@contextmanager
def ray_session(address: str = HERE) -> Iterator[Any]:
    """Ray's module, connected. A Ray that this process is already connected to is taken.

    Args:
        address: "host:port" of a cluster's head node, or "local". Then the cluster that the
            variable RAY_ADDRESS names is taken, or a Ray is started with the CPUs of this process.

    Raises:
        BadInput: nothing answers at the address in time. What answers is no Ray, or it refuses. It
            wants a token, and this process sends none.
        MissingDependency: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
    if address == HERE:
        address = os.environ.get("RAY_ADDRESS", HERE)
    if address == HERE:  # or Ray would write a token into the user's home
        os.environ.setdefault("RAY_AUTH_TOKEN", uuid4().hex)
    ray = import_package("ray", package="ray", extra="ray", purpose="--ray", fix="Install it again")
    if ray.is_initialized():
        yield ray
        return
    if address not in (HERE, "auto"):
        check_answers(address)
    # Ray prints hundreds of lines on a worker's end; they are in its logs, and stdout is for data
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        try:
            _connect(ray, address)
            yield ray
        finally:
            ray.shutdown()


def check_answers(address: str, seconds: float = _ANSWER_SECONDS) -> None:
    """See that a head node answers: `ray.init` would try for minutes, and then end the process.

    Args:
        address: "host:port".
        seconds: to wait.

    Raises:
        BadInput: it is not an address, or nothing listens there. What listens there does not speak
            gRPC, as a head node does. The head node wants a token.
    """
    if "://" in address:
        raise BadInput(
            f"{address} is not the address of a head node",
            why="Ray Client and the dashboard have other protocols",
            fix="Give the port of `ray start --head`, such as 10.0.0.1:6379, or submit the command "
            "with `ray job submit`",
        )
    place, fix = Address.parse(address), "Give the address that `ray start --head` printed"
    try:
        socket.create_connection((place.host, place.port), timeout=seconds).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise BadInput(f"no Ray answers at {address}", why=why, fix=fix) from error
    grpc = import_package("grpc", package="grpcio", extra="ray", purpose="--ray", fix="Install it")
    with grpc.insecure_channel(address) as channel:
        ready = grpc.channel_ready_future(channel)
        try:
            ready.result(timeout=seconds)
            _check_token(grpc, channel, address, seconds)
        except grpc.FutureTimeoutError:
            raise BadInput(
                f"no Ray answers at {address}",
                why=f"nothing there spoke its protocol within {seconds:g} s",
                fix=fix,
            ) from None
        finally:
            ready.cancel()


def _check_token(grpc: Any, channel: Any, address: str, seconds: float) -> None:
    """Refuse a head node that wants a token if Ray sends none: Ray would try for a minute."""
    if os.environ.get(AUTH_MODE, "").lower() == "token":
        return
    try:
        channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=seconds)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise BadInput(
                f"the Ray at {address} wants a token",
                fix=f"Set {AUTH_MODE}=token, and copy the head's ~/.ray/auth_token to the same "
                "path here",
            ) from error


def _connect(ray: Any, address: str) -> None:
    """Connect, or start a Ray here; gives up after a while."""
    given: dict[str, Any] = {"address": address}
    if address == HERE:
        os.environ.setdefault(NICENESS, "0")  # as without Ray, which gives its workers 15
        given |= {
            "num_cpus": cpu_budget().threads or os.cpu_count() or 1,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
    timer = threading.Timer(_JOIN_SECONDS, _give_up, [address])
    timer.daemon = True
    timer.start()
    try:
        ray.init(**given, log_to_driver=False, logging_level="ERROR", configure_logging=True)
    except (Exception, SystemExit) as error:
        what = "cannot start Ray here" if address == HERE else f"cannot use the Ray at {address}"
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = (
            "All nodes need the same versions of Python and Ray, and the same token; `ray status` "
            "shows a cluster"
        )
        raise BadInput(what, why=why, fix=fix) from error
    finally:
        timer.cancel()


def _give_up(address: str) -> None:
    """End this process: `ray.init` hangs in native code, which no exception reaches."""
    text = f"retinart: the Ray at {address} did not let this process in within {_JOIN_SECONDS:g} s"
    os.write(2, f"{text}. See its logs, and `ray status`.\n".encode())
    os._exit(BadInput.exit_code)
