"""What a clip dataset holds, counted and measured from the index lines of its clips: by split and class."""

import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_preprocess.plan import Plan
from beam_preprocess.settings import LogMelSettings


def statistics(plan: Plan, class_names: Sequence[str], settings: LogMelSettings) -> dict[str, Any]:
    """The statistics of a spec.

    Returns:
      splits: for each split `log_mel` ({min, max, mean, std} of the values as stored; a model may look at those of
        "train"
        only), `all` and `classes` (see `_clips`).
      rejected, silent_windows: by class, the inputs refused and the windows left out as silence.
    """
    splits = {}
    for split in plan.shards:
        clips = [plan.clips[id] for id in sorted(plan.ids(split))]
        by_class = collections.defaultdict(list)
        for clip in clips:
            by_class[clip["label"]].append(clip)
        splits[split] = {
            "log_mel": _values(clips, math.prod(settings.shape)),
            "all": _clips(clips, settings.clip_s),
            "classes": {name: _clips(by_class[name], settings.clip_s) for name in class_names if by_class[name]},
        }
    rejected = collections.Counter(line["label"] for line in plan.rejects if line["label"] is not None)
    return {
        "splits": splits,
        "rejected": {name: rejected[name] for name in class_names if rejected[name]},
        "silent_windows": {name: plan.silent[name] for name in class_names if plan.silent.get(name)},
    }


def _values(clips: Sequence[Mapping], values_per_clip: int) -> dict[str, float]:
    count = values_per_clip * len(clips)
    mean = math.fsum(clip["sum"] for clip in clips) / count
    mean_square = math.fsum(clip["sum_of_squares"] for clip in clips) / count
    return {
        "min": min(clip["min"] for clip in clips),
        "max": max(clip["max"] for clip in clips),
        "mean": mean,
        "std": math.sqrt(max(mean_square - mean**2, 0.0)),
    }


def _clips(clips: Sequence[Mapping], clip_s: float) -> dict[str, Any]:
    """Counts, and ranges of length and level.

    num_padded: clips shorter than clip_s. num_clipped: clips with samples clipped at full scale. num_silent: clips of
    digital silence, which have no level and stand in no range. duration_s: seconds of audio before padding.
    """
    return {
        "num_clips": len(clips),
        "num_recordings": len({clip["recording"] for clip in clips}),
        "num_padded": sum(clip["duration_s"] < 0.999 * clip_s for clip in clips),
        "num_clipped": sum(clip["num_clipped"] > 0 for clip in clips),
        "num_silent": sum(not clip["peak"] for clip in clips),
        "duration_s": _range(clip["duration_s"] for clip in clips),
        "peak_dbfs": _range(_db(clip["peak"]) for clip in clips if clip["peak"]),
        "rms_dbfs": _range(_db(clip["rms"]) for clip in clips if clip["rms"]),
    }


def _db(amplitude: float) -> float:
    return 20 * math.log10(amplitude)


def _range(values: Iterable[float]) -> dict[str, float] | None:
    values = list(values)
    if not values:
        return None
    return {"min": min(values), "mean": math.fsum(values) / len(values), "max": max(values)}
