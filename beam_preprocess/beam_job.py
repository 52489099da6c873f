"""Runs a graph on the runner that Beam's options name, with a progress bar, and says in a sentence why it stopped."""

import contextlib
import io
import sys
import threading
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, SetupOptions, StandardOptions
from tqdm import tqdm

from beam_preprocess.recordings import Recording
from beam_preprocess.workspace import PartRef, Workspace
from tfdata import storage
from tfdata.spec import DatasetError

# DirectRunner would fetch a binary (Prism) where it has a network; this one is plain Python and runs in this process.
_LOCAL_RUNNER = "FnApiRunner"
# Threads start at once but share one interpreter: two of them do 1.5 times the work of one. Processes take some seconds
# to start and share nothing. benchmarks/prepare.py measures both; from so many recordings on it is processes.
_RECORDINGS_FOR_PROCESSES, _BYTES_FOR_PROCESSES = 20_000, 4 << 30


def pipeline_with(
    beam_args: Sequence[str], *, recordings: Sequence[Recording], several_clips_each: bool
) -> beam.Pipeline:
    """An empty graph with Beam's options; without --runner it will run here, with a worker for each core.

    The workers are threads, or processes where there are many recordings.

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
            long = several_clips_each and sum(each.num_bytes for each in recordings) >= _BYTES_FOR_PROCESSES
            many = long or len(recordings) >= _RECORDINGS_FOR_PROCESSES
            direct.direct_running_mode = "multi_processing" if many else "multi_threading"
            direct.direct_num_workers = 0  # as many as there are cores
    # The DoFns live in importable modules; nothing of __main__ has to travel.
    options.view_as(SetupOptions).save_main_session = False
    try:
        return beam.Pipeline(options=options)
    except (ValueError, ImportError) as error:  # of the runner: a project's name that can't be, an extra not installed
        raise DatasetError(f"Beam does not take the options after --: {error}") from error


def run(
    job: beam.Pipeline,
    *,
    workspace: Workspace,
    parts: Sequence[PartRef],
    show_progress: bool,
) -> None:
    """Run a graph to its end.

    Raises:
      DatasetError: the job failed, was cancelled, or ended without doing all of its parts.
    """
    with _Progress(workspace, parts, shown=show_progress):
        try:
            state = job.run().wait_until_finish()
        except Exception as error:  # whatever a runner raises, with a worker's trace in it
            last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise DatasetError(
                f"the job stopped ({last[0][:500]}); nothing finished is lost, the same command continues"
            ) from error
    undone = {part.name for part in parts} - workspace.parts_done()
    if undone:  # a runner may answer DONE and have run nothing
        raise DatasetError(
            f"the job ended ({state}) with {len(undone)} of {len(parts)} parts not done: it was cancelled, or its "
            "runner only stored it, as Dataflow does with --template_location; without that, the same command continues"
        )


class _Progress:
    """A progress bar fed from the finished parts in storage, so that it works on whatever runner does the work."""

    def __init__(self, workspace: Workspace, parts: Sequence[PartRef], *, shown: bool):
        self._workspace = workspace
        self._sizes = {part.name: part.num_recordings for part in parts}
        self._shown = shown
        self._bar = tqdm(total=sum(self._sizes.values()), desc="prepare", unit=" recordings", disable=not shown)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        done = self._done()
        if done and self._shown:
            tqdm.write(
                f"continuing an interrupted job: {done:,} of {self._bar.total:,} recordings are done", file=sys.stderr
            )
        self._thread.start()

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()
        self._bar.update(self._done() - self._bar.n)
        self._bar.close()

    def _done(self) -> int:
        return sum(self._sizes.get(name, 0) for name in self._workspace.parts_done())

    def _watch(self):
        while not self._stop.wait(5.0 if storage.is_remote(self._workspace.output) else 0.3):
            with contextlib.suppress(OSError):  # a store that does not answer now may the next time
                self._bar.update(self._done() - self._bar.n)
