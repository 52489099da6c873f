"""How fast `prepare` is, as ratios in one run against what one would write without it.

  .venv/bin/python benchmarks/prepare.py --notes=FOLDER

FOLDER holds short recordings, a folder for each class. Everything runs on one core at a time but for what says
two; there BLAS is held to one thread, which is to the loop's advantage. Rounds are interleaved, and the
median of their rates is told with the lowest and highest.
"""

import argparse
import csv
import multiprocessing
import os
import pathlib
import resource
import statistics
import tempfile
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

import librosa
import numpy as np
import soundfile

from beam_preprocess import audio
from beam_preprocess.clip_encoder import ClipEncoder
from beam_preprocess.prepare import prepare
from beam_preprocess.recordings import Recording
from beam_preprocess.settings import LogMelSettings, PrepareSettings, WindowSettings

SETTINGS = LogMelSettings()
THREADS = ["--runner=FnApiRunner", "--direct_running_mode=multi_threading"]
PROCESSES = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"]


def decode_only(paths):
    for path in paths:
        with soundfile.SoundFile(path) as file:
            file.read(int(file.samplerate * SETTINGS.clip_s), dtype="float32")


def librosa_loop(paths):
    """What one would write: the same settings, and nothing stored."""
    for path in paths:
        samples, rate_hz = librosa.load(path, sr=SETTINGS.sample_rate_hz, duration=SETTINGS.clip_s)
        mel = librosa.feature.melspectrogram(
            y=samples, sr=rate_hz, n_fft=SETTINGS.n_fft, hop_length=SETTINGS.hop_length, n_mels=SETTINGS.n_mels
        )
        np.log(np.maximum(mel, SETTINGS.log_floor))


def librosa_defaults(paths):
    """The shortest loop there is: 22,050 Hz and 44 frames, which is other and more work than the rows beside it."""
    for path in paths:
        samples, rate_hz = librosa.load(path, duration=1)
        librosa.feature.melspectrogram(y=samples, sr=rate_hz)


def plain_loop(paths):
    """What a Beam worker repeats, down to the encoded record and its index line, in a loop of its own."""
    encode = ClipEncoder(PrepareSettings(), ("class",))
    for path in paths:
        for _ in encode(Recording(path=path, name=path, label="class", group=path)):
            pass


def beam_job(paths, copies, folder, beam_args):
    """The whole command, from listing to the complete dataset, without the audit of its splits."""
    manifest = folder / "manifest.csv"
    with open(manifest, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for copy in range(copies):  # the same file under many names
            for index, path in enumerate(paths):
                writer.writerow(
                    [os.path.join(os.path.dirname(path), "./" * copy, os.path.basename(path)), f"{index % 7}"]
                )
    output = tempfile.mkdtemp(dir=folder)
    prepare(output=output, settings=PrepareSettings(), manifest=str(manifest), beam_args=beam_args,
            leak_audit=False, show_progress=False)  # fmt: skip


def write_wavs(paths, folder):
    """The same recordings whole, as 44.1 kHz 16-bit wav."""
    wavs = []
    for index, path in enumerate(paths):
        samples, rate_hz = soundfile.read(path, dtype="float32")
        wavs.append(f"{folder}/{index:05d}.wav")
        soundfile.write(wavs[-1], samples, rate_hz, subtype="PCM_16")
    return wavs


def measure(rows, num_clips, rounds, *, warm_up=True):
    """Median, lowest and highest rate of each row, in clips a second."""
    rates = {name: [] for name in rows}
    if warm_up:  # not counted: files come from the disk, libraries are imported
        for run in rows.values():
            run()
    for _ in range(rounds):
        for name, run in rows.items():
            started = time.perf_counter()
            run()
            rates[name].append(num_clips / (time.perf_counter() - started))
    return {name: (statistics.median(found), min(found), max(found)) for name, found in rates.items()}


def table(title, rates, compare):
    print(f"\n{title}")
    print(f"{'':34}{'clips/s':>9}{'lowest':>9}{'highest':>9}  " + "".join(f"{'/ ' + name:>28}" for name in compare))
    for name, (median, low, high) in rates.items():
        ratios = "".join(f"{median / rates[other][0]:28.2f}" for other in compare)
        print(f"{name:34}{median:9,.0f}{low:9,.0f}{high:9,.0f}  {ratios}", flush=True)


def one_core(title, paths, rounds):
    rows = {
        "decode only": lambda: decode_only(paths),
        "librosa loop": lambda: librosa_loop(paths),
        "librosa loop, librosa's defaults": lambda: librosa_defaults(paths),
        "melcache, plain loop": lambda: plain_loop(paths),
    }
    table(title, measure(rows, len(paths), rounds), ["librosa loop", "decode only"])


def two_processes(paths, rounds):
    """Both loops as one runs them on two cores: a process for each, and BLAS with as many threads as it likes."""
    os.environ["OPENBLAS_NUM_THREADS"] = str(os.cpu_count())
    halves = [paths[::2], paths[1::2]]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = {
            "librosa loop": lambda: pool.map(librosa_loop, halves, chunksize=1),
            "melcache, plain loop": lambda: pool.map(plain_loop, halves, chunksize=1),
        }
        rates = measure(rows, len(paths), rounds)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    table("the same in two processes, BLAS threads as they come", rates, ["librosa loop"])


def workers(paths, copies, rounds, folder):
    rows = {"melcache, plain loop": lambda: plain_loop(paths * copies)}
    for kind, args in (("threads", THREADS), ("processes", PROCESSES)):
        for number in (1, 2):
            rows[f"Beam, {number} worker{'s' * (number > 1)} ({kind})"] = lambda args=args, number=number: beam_job(
                paths, copies, folder, [*args, f"--direct_num_workers={number}"]
            )
    compare = ["melcache, plain loop", "Beam, 1 worker (threads)", "Beam, 1 worker (processes)"]
    rates = measure(rows, copies * len(paths), rounds, warm_up=False)
    table(f"Beam jobs over {copies * len(paths):,} recordings, start-up and all", rates, compare)


def all_windows(path):
    """Clips of a recording, seconds that took, and by how many MiB the process's largest memory grew."""
    encode = ClipEncoder(PrepareSettings(windows=WindowSettings(max_windows=None)), ("a",))
    before, started = _peak_kib(), time.perf_counter()
    clips = sum(1 for _ in encode(Recording(path=path, name="x", label="a", group="x")))
    return clips, time.perf_counter() - started, (_peak_kib() - before) / 1024


def _peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def long_recording(folder):
    path = folder / "long" / "a" / "two_hours.wav"
    path.parent.mkdir(parents=True)
    minute = (np.random.default_rng(0).standard_normal(60 * 44_100) * 3000).astype(np.int16)
    with soundfile.SoundFile(path, "w", 44_100, 1, "PCM_16") as file:
        for index in range(120):
            file.write(np.roll(minute, index))
    print(f"\nA recording of two hours ({path.stat().st_size >> 20} MiB)")
    before, started = _bytes_read(), time.perf_counter()
    list(audio.windows(str(path), clip_s=1.0, hop_s=1.0, max_windows=1))
    print(f"first second: {1000 * (time.perf_counter() - started):.1f} ms, {(_bytes_read() - before) >> 10} KiB read")
    with multiprocessing.get_context("spawn").Pool(1) as fresh:  # a process whose memory is its own
        clips, seconds, mib = fresh.apply(all_windows, (str(path),))
    print(f"all windows: {clips:,.0f} clips, {clips / seconds:,.0f} clips/s, {mib:.1f} MiB more memory at the peak")


def _bytes_read():
    return int(pathlib.Path("/proc/self/io").read_text().split()[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", required=True, help="recordings, a folder for each class")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--job_rounds", type=int, default=3, help="rounds of the Beam jobs")
    parser.add_argument("--copies", type=int, default=40, help="how often a Beam job goes through the recordings")
    arguments = parser.parse_args()
    paths = sorted(str(path) for path in pathlib.Path(arguments.notes).rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        one_core(f"{len(paths):,} recordings as they are, one core", paths, arguments.rounds)
        two_processes(paths, arguments.rounds)
        one_core("the same as 44.1 kHz wav, one core", write_wavs(paths, name), arguments.rounds)
        workers(paths, arguments.copies, arguments.job_rounds, folder)
        long_recording(folder)


if __name__ == "__main__":
    main()
