"""Segments many videos in a Ray cluster, or with Ray on this machine: Ray Data brings the rows to actors.

The files are the same as those of `osmn_tf.jobs.many.run_here`, and so is the record. The cluster's machines see the
videos, the masks and the folder of the results under the same paths.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from osmn_tf.errors import InputError, import_extra
from osmn_tf.jobs.manifest import Record
from osmn_tf.jobs.many import BUSY, Runner, Setting, process_one
from osmn_tf.jobs.rows import Row

THREADS = 1  # of an actor, unless its setting says it
_PATIENCE = 5.0  # seconds for a cluster to answer
TRIES = 3  # actors that may die over a row: Ray itself would go on for ever


def run_on_ray(workers: int | None = None, setting: Setting | None = None, address: str | None = None) -> Runner:
    """A runner in the actors of a Ray cluster.

    Args:
        workers: how many actors; None: as many as the cluster has cores for.
        setting: of each.
        address: of the cluster, "auto" or "HOST:6379" on one of its machines; None: Ray on this machine.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    import_extra("ray.data", "ray", "ray", "--runner ray")
    setting = setting or Setting()
    if setting.threads is None:
        setting = dataclasses.replace(setting, threads=THREADS)
    return functools.partial(_run_on_ray, workers, setting, address)


def check_address(address: str | None) -> None:
    """Finds out that nobody answers at HOST:PORT: Ray itself takes minutes for it.

    Raises:
        InputError: nobody does.
    """
    host, separator, port = (address or "").rpartition(":")
    if not separator or not port.isdecimal() or "://" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise InputError(f"--address: nobody answers at {address} ({error.strerror or error})") from error


def _run_on_ray(
    workers: int | None,
    setting: Setting,
    address: str | None,
    rows: Sequence[Row],
    has_ended: Callable[[Row], bool],
    share: Callable[[float], None],
) -> Iterator[Record]:
    import ray
    import ray.data

    threads = setting.threads or THREADS
    check_address(address)
    mine = not ray.is_initialized()
    if mine:
        try:
            local: dict[str, Any] = {"include_dashboard": False} if address is None else {}
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError) as error:
            raise InputError(f"--address: there is no Ray cluster at {address} ({error})") from error
    try:
        workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        while rows:
            busy = []
            waiting = {row.name: row for row in rows}
            for record in _records(rows, workers, threads, setting):
                row = waiting.pop(record["name"])
                if record["status"] != "busy":
                    yield record
                elif not has_ended(row):
                    busy.append(row)
            rows = busy
            if rows:  # others are at work on them
                time.sleep(BUSY)
    except ray.exceptions.RayError as error:
        raise InputError(f"--runner ray: {' '.join(str(error).split())[-300:]}") from error
    finally:
        if mine:
            ray.shutdown()


def _records(rows: Sequence[Row], workers: int, threads: int, setting: Setting) -> Iterator[Record]:
    """What became of each row, in the order in which they end. Ray starts an actor that has died anew, with its row."""
    import ray.data

    actor: Any = _Actor  # Ray documents classes too, where its annotation of `map` has functions only
    # A block a row, so that an actor takes one when it has done with another.
    items = [{"row": json.dumps(dataclasses.asdict(row))} for row in rows]
    records = ray.data.from_items(items, override_num_blocks=len(items)).map(
        actor,
        fn_constructor_args=(setting,),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
        num_cpus=threads,
    )
    for item in records.iter_rows():
        yield json.loads(item["record"])


class _Actor:
    """`process_one` in a process of a cluster."""

    def __init__(self, setting: Setting) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        setting.apply()
        self._setting = setting

    def __call__(self, item: dict[str, Any]) -> dict[str, str]:
        row = Row(**json.loads(item["row"]))
        return {"record": json.dumps(process_one(row, open_segmenter=self._setting.open_segmenter, tries=TRIES))}
