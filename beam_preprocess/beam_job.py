"""Runs a graph on the runner that Beam's options name, with a progress bar, and says in a sentence why it stopped."""

import contextlib
import dataclasses
import io
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, SetupOptions, StandardOptions
from tqdm import tqdm

from tfdata import storage
from tfdata.spec import DatasetError

# DirectRunner would fetch a binary (Prism) where it has a network; this one is plain Python and runs in this process.
_LOCAL_RUNNER = "FnApiRunner"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What a job has to do, in pieces that each leave a file when they are done.

    Attributes:
      name: what the progress bar is called.
      pieces: what a piece is called, in the plural: "parts".
      unit: what the sizes count: "recordings".
      sizes: each piece's name and size.
      done: looks up in storage which pieces are done; may name others too.
      directory: where those files are.
    """

    name: str
    pieces: str
    unit: str
    sizes: Mapping[str, int]
    done: Callable[[], set[str]]
    directory: str

    def num_done(self) -> int:
        """How much is done, in units."""
        return sum(self.sizes.get(piece, 0) for piece in self.done())


def pipeline_with(beam_args: Sequence[str], *, in_processes: bool, num_workers: int = 0) -> beam.Pipeline:
    """An empty graph with Beam's options; without --runner it will run here.

    Args:
      beam_args: Beam's own options.
      in_processes: whether workers here are processes, or threads. Threads start at once but share one interpreter:
        two of them do 1.5 times the work of one where it is Python's. Processes take some seconds to start and share
        nothing.
      num_workers: so many workers here; 0 takes one for each core.
    Raises:
      DatasetError: Beam has no such option, or does not take its value.
    """
    usage = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage):  # argparse prints pages of Beam's flags before it exits
            options = PipelineOptions(list(beam_args))
            known = options.get_all_options()
            given = options.get_all_options(retain_unknown_options=True, drop_default=True)
    except SystemExit as error:
        reason = usage.getvalue().strip().splitlines()[-1:]
        raise DatasetError(f"Beam does not take the options after --: {' '.join(reason)}") from error
    unknown = [name for name in given if name not in known]
    if unknown or (beam_args and not beam_args[0].startswith("-")):
        raise DatasetError(f"Beam has no option {'--' + unknown[0] if unknown else beam_args[0]} (given after --)")
    standard = options.view_as(StandardOptions)
    if standard.runner is None:
        standard.runner = _LOCAL_RUNNER
        direct = options.view_as(DirectOptions)
        if not any(arg.startswith("--direct_") for arg in beam_args):
            direct.direct_running_mode = "multi_processing" if in_processes else "multi_threading"
            direct.direct_num_workers = num_workers
    _reach_this_machine_directly()
    # The DoFns live in importable modules; nothing of __main__ has to travel.
    options.view_as(SetupOptions).save_main_session = False
    try:
        return beam.Pipeline(options=options)
    except (ValueError, ImportError) as error:  # of the runner: a project's name that can't be, an extra not installed
        raise DatasetError(f"Beam does not take the options after --: {error}") from error


def _reach_this_machine_directly() -> None:
    """Beam talks to workers here by gRPC, which would ask a network's proxy (https_proxy) for the way, and wait."""
    spared = (os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or "").split(",")
    here = [host for host in ("localhost", "127.0.0.1") if host not in spared]
    os.environ["no_grpc_proxy"] = ",".join(filter(None, [*spared, *here]))


def run(job: beam.Pipeline, *, work: Work, show_progress: bool) -> None:
    """Run a graph to its end.

    Raises:
      DatasetError: the job failed, was cancelled, or ended without doing all of its work.
    """
    with _Progress(work, shown=show_progress):
        try:
            state = job.run().wait_until_finish()
        except Exception as error:  # whatever a runner raises, with a worker's trace in it
            last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise DatasetError(
                f"the job stopped ({last[0][:500]}); nothing finished is lost, the same command continues"
            ) from error
    undone = work.sizes.keys() - work.done()
    if undone:  # a runner may answer DONE and have run nothing
        raise DatasetError(
            f"the job ended ({state}) with {len(undone)} of {len(work.sizes)} {work.pieces} not done: it was "
            "cancelled, or its runner only stored it, as Dataflow does with --template_location; without that, the "
            "same command continues"
        )


class _Progress:
    """A progress bar fed from the finished pieces in storage, so that it works on whatever runner does the work."""

    def __init__(self, work: Work, *, shown: bool):
        self._work = work
        self._shown = shown
        total = sum(work.sizes.values())
        self._bar = tqdm(total=total, desc=work.name, unit=f" {work.unit}", disable=not shown)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        done = self._work.num_done()
        if done and self._shown:
            tqdm.write(
                f"continuing an interrupted job: {done:,} of {self._bar.total:,} {self._work.unit} are done",
                file=sys.stderr,
            )
        self._thread.start()

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()
        self._bar.update(self._work.num_done() - self._bar.n)
        self._bar.close()

    def _watch(self):
        while not self._stop.wait(5.0 if storage.is_remote(self._work.directory) else 0.3):
            with contextlib.suppress(OSError):  # a store that does not answer now may the next time
                self._bar.update(self._work.num_done() - self._bar.n)
