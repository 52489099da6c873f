"""Near-copies: clips whose log-mels are the same but for gain, encoding, a little noise or a small shift.

The difference between two clips is stated in dB: the RMS difference of their log-mel levels, each clip's maximum at 0
and all that lies more than 40 dB below it taken as silent, over the bins where either clip is not silent. Gain doesn't
enter. A clip may be early or late: the least difference over shifts of -1, -1/2, 0, 1/2 and 1 frame counts, so that the
first and last frame only give the others room. Half a frame is the mean power of two neighbouring frames.

THRESHOLD_DB was chosen on 1,301 single orchestral notes of seven instruments (44.1 kHz mp3; 128 x 12 log-mels at
12 kHz, frames 85 ms apart). Percentiles of the difference in dB, and the share that 3.5 dB finds:

                          5 %    50 %    95 %   found
    gain -6 dB           0.00    0.01    0.01   100 %
    gain -12 dB, 16 bit  0.01    0.01    0.03   100 %
    8 bit                0.19    1.98    5.42    78 %
    mp3, middling rate   0.11    0.45    1.38   100 %
    mp3, lowest rate     0.52    2.24    4.54    82 %
    Vorbis, low rate     0.33    1.31    3.04    98 %
    22.05 kHz and back   0.00    0.00    0.00   100 %
    noise, 40 dB SNR     0.02    0.04    0.06   100 %
    noise, 20 dB SNR     0.24    0.40    0.72   100 %
    5 ms later           0.25    0.54    1.10   100 %
    20 ms later          0.95    1.89    3.74    91 %
    40 ms later          1.14    2.37    4.67    78 %
    85 ms later          0.03    0.06    0.73   100 %
    120 ms later         1.81    3.53    6.36    49 %
    leading silence cut  0.96    2.26    4.48    84 %
    speed 1 % faster     1.97    5.61    9.22    16 %

Each note's nearest other note of a kind:

                          least     1 %     5 %    50 %   within 3.5 dB
    another take           1.71    2.62    3.47    6.64           5.3 %
    another pitch          3.89    4.73    5.82   11.71             0 %
    another instrument     4.61    5.51    6.40    8.93             0 %

So at 3.5 dB no note is taken for another pitch or instrument (the closest are 3.9 dB apart), while what a converter,
an editor or a microphone preamplifier does to a copy is mostly found. What isn't found: changes of speed or pitch,
shifts beyond a frame and a third, and most takes of one note at another dynamic or length. Those are no copies, yet
they make a random split easy; leak_audit's probe sees them. And two stretches of steady noise of one colour are 2.3 to
3 dB apart, whoever recorded them: as log-mels they are alike, and are reported as near-copies.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

THRESHOLD_DB = 3.5

_RANGE_DB = 40.0  # 60 dB finds half of the low-rate mp3s and 8-bit copies that 40 dB finds, at equal false alarms
_DIMENSIONS = 128
_SEGMENTS = 4
_HELDOUT_BLOCK, _TRAIN_BLOCK, _PAIR_BLOCK = 512, 8192, 4096  # clips of up to 128 x 12 values; fewer of larger ones
_MAX_CANDIDATES = 32  # for each clip, shift and block; only sets full of copies have more


@dataclasses.dataclass(frozen=True)
class Clips:
    """A split, or a sample of it.

    Attributes:
      images: log-mels, natural logarithm, float [n, n_mels, frames], finite.
      labels: int [n].
      ids: [n], unique.
      groups: [n]; what `--group` keeps together, else the recording's name.
    Raises:
      ValueError: shapes that don't fit each other, or values that aren't finite.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: Sequence[str]
    groups: Sequence[str]

    def __post_init__(self):
        if self.images.ndim != 3 or not len(self.images) == len(self.labels) == len(self.ids) == len(self.groups):
            raise ValueError(
                f"expected images [n, n_mels, frames] with n labels, ids and groups, got {list(self.images.shape)}, "
                f"{len(self.labels)}, {len(self.ids)} and {len(self.groups)}"
            )
        if not np.isfinite(self.images).all():
            raise ValueError("log-mels must be finite: prepare the dataset again")

    def __len__(self):
        return len(self.labels)

    def take(self, places: np.ndarray) -> "Clips":
        """The clips at int [k], in that order."""
        ids, groups = ([values[place] for place in places] for values in (self.ids, self.groups))
        return Clips(self.images[places], np.asarray(self.labels)[places], ids, groups)


@dataclasses.dataclass(frozen=True)
class NearCopy:
    """A held-out clip's nearest training clip, by ids, and their difference in dB, at least 0."""

    clip: str
    train_clip: str
    difference_db: float
    same_class: bool


def near_copies(
    heldout: Clips, train: Clips, *, threshold_db: float = THRESHOLD_DB, power: float = 2.0
) -> list[NearCopy]:
    """For each held-out clip its nearest training clip, where that lies within `threshold_db`; nearest first.

    Nothing within the threshold is missed, but where a clip has more than 32 candidates among 8,192 training clips.
    Candidates come from a lower bound: orthonormal projections (means over four stretches of time, then principal
    components of the training clips, Jolliffe, "Principal Component Analysis", 2002) never lengthen a difference.
    Each candidate's own difference decides, so that neither BLAS nor its threads do.

    Args:
      threshold_db: at least 0.
      power: `LogMelSettings.power`: exponent of the magnitude before the logarithm.
    Raises:
      ValueError: images of the two differ in shape, or a negative threshold.
    """
    if not threshold_db >= 0:
        raise ValueError(f"threshold_db must be at least 0, got {threshold_db}")
    if not len(heldout) or not len(train):
        return []
    if heldout.images.shape[1:] != train.images.shape[1:]:
        raise ValueError(f"images {list(heldout.images.shape[1:])} and {list(train.images.shape[1:])} differ in shape")
    levels = functools.partial(_levels_db, db_per_unit=20 / power / np.log(10))
    project = _projection(_windows(levels(train.images[_spread(len(train), 2048)]))[0])
    keys = []
    size = train.images[0].size
    heldout_block, train_block = _fewer(_HELDOUT_BLOCK, size), _fewer(_TRAIN_BLOCK, size)
    for start in range(0, len(train), train_block):
        values, norms, sounding = project(_windows(levels(train.images[start : start + train_block]))[0])
        keys.append(np.column_stack([values, norms, np.ones_like(norms), sounding]))

    found = []
    for start in range(0, len(heldout), heldout_block):
        whole = levels(heldout.images[start : start + heldout_block])
        best_db, best = _nearest(whole, train.images, keys, levels, project, threshold_db)
        for row in np.flatnonzero(best >= 0):
            clip, copy = start + row, best[row]
            same_class = bool(heldout.labels[clip] == train.labels[copy])
            found.append(NearCopy(heldout.ids[clip], train.ids[copy], float(best_db[row]), same_class))
    return sorted(found, key=lambda copy: copy.difference_db)


def _nearest(whole, train_images, keys, levels, project, threshold_db) -> tuple[np.ndarray, np.ndarray]:
    """Differences in dB and places in training of the clips nearest to `whole` [n, n_mels, frames]; place -1: none."""
    windows = _windows(whole)
    projected = [project(window) for window in windows]
    best_db, best = np.full(len(whole), threshold_db, np.float32), np.full(len(whole), -1)
    for block, key in enumerate(keys):
        first = block * _fewer(_TRAIN_BLOCK, whole[0].size)
        for window, (values, norms, sounding) in zip(windows, projected):
            # |a - b|^2 - best^2 (sounding bins of a + those of b), at most 0 where b may be as near as the best so far.
            limit = best_db**2
            query = np.column_stack([-2 * values, np.ones_like(norms), norms - limit * sounding, -limit])
            rows, places = _candidates(query.astype(np.float32) @ key.T)
            pairs = _fewer(_PAIR_BLOCK, whole[0].size)
            for start in range(0, len(rows), pairs):
                row, place = rows[start : start + pairs], first + places[start : start + pairs]
                needed, which = np.unique(place, return_inverse=True)
                others = levels(train_images[needed])
                away_db = _difference_db(window[row], _windows(others)[0][which], whole, row, others, which)
                order = np.lexsort((place, away_db, row))
                order = order[np.unique(row[order], return_index=True)[1]]  # the nearest for each row
                row, place, away_db = row[order], place[order], away_db[order]
                better = (away_db < best_db[row]) | (
                    (away_db == best_db[row]) & ((best[row] < 0) | (place < best[row]))
                )
                best_db[row[better]], best[row[better]] = away_db[better], place[better]
    return best_db, best


def _fewer(clips: int, size: int) -> int:
    """So many clips that they take the memory of `clips` of 128 x 12 values."""
    return max(1, clips * 128 * 12 // max(size, 128 * 12))


def _levels_db(images: np.ndarray, *, db_per_unit: float) -> np.ndarray:
    """dB above the bottom of the clip's range, float32 in 0 (silent) to _RANGE_DB (its maximum); constant: silent."""
    levels = images.astype(np.float32) * np.float32(db_per_unit)
    top = levels.max(axis=(1, 2), keepdims=True, initial=-np.inf)
    constant = top == levels.min(axis=(1, 2), keepdims=True, initial=np.inf)
    return np.where(constant, 0, np.maximum(levels - top + _RANGE_DB, 0)).astype(np.float32)


def _windows(levels: np.ndarray) -> list[np.ndarray]:
    """[n, n_mels, frames] as stretches of frames - 2, unshifted first, then by 1 and 1/2 frame to either side."""
    if levels.shape[2] < 4:  # too short to spare two frames
        return [levels]
    power = 10 ** (levels / 10)
    half = 10 * np.log10((power[:, :, 1:] + power[:, :, :-1]) / 2)
    return [levels[:, :, 1:-1], levels[:, :, :-2], levels[:, :, 2:], half[:, :, :-1], half[:, :, 1:]]


def _difference_db(windows, train_windows, whole, row, others, which) -> np.ndarray:
    """float32 [n]: RMS over the bins that sound in either; whole clips where both windows are silent."""
    both = _rms_of_sounding(windows, train_windows)
    silent = np.flatnonzero(np.isnan(both))
    both[silent] = np.nan_to_num(_rms_of_sounding(whole[row[silent]], others[which[silent]]))
    return both


def _rms_of_sounding(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float32 [n]; NaN where nothing sounds in either."""
    squares = np.square(a - b).sum(axis=(1, 2))
    sounding = np.count_nonzero((a > 0) | (b > 0), axis=(1, 2))
    return np.sqrt(np.where(sounding > 0, squares / np.maximum(sounding, 1), np.nan)).astype(np.float32)


def _projection(levels: np.ndarray):
    """A function from [n, n_mels, frames] to values [n, k], their squared norms [n] and the bins that sound [n]."""
    frames = levels.shape[2]
    starts = np.unique(np.linspace(0, frames, min(_SEGMENTS, frames), endpoint=False).astype(int))
    root_lengths = np.sqrt(np.diff([*starts, frames])).astype(np.float32)

    def pooled(levels):
        return (np.add.reduceat(levels, starts, axis=2) / root_lengths).reshape(len(levels), -1)

    means = pooled(levels)
    centre = means.mean(axis=0)
    basis = np.linalg.svd(means - centre, full_matrices=False)[2][:_DIMENSIONS].T

    def project(levels):
        values = (pooled(levels) - centre) @ basis
        # Less by more than single precision's rounding, so that the bound stays one.
        norms = np.float32(1 - 1e-4) * np.square(values).sum(axis=1)
        return values, norms, np.count_nonzero(levels, axis=(1, 2)).astype(np.float32)

    return project


def _candidates(bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of float [n, m] that are at most 0, the least _MAX_CANDIDATES of each row."""
    rows, columns = np.divmod(np.flatnonzero(bounds <= 0), bounds.shape[1])
    counts = np.bincount(rows, minlength=len(bounds))
    crowded = np.flatnonzero(counts > _MAX_CANDIDATES)
    if crowded.size:
        least = np.argpartition(bounds[crowded], _MAX_CANDIDATES, axis=1)[:, :_MAX_CANDIDATES]
        keep = counts[rows] <= _MAX_CANDIDATES
        rows = np.concatenate([rows[keep], np.repeat(crowded, _MAX_CANDIDATES)])
        columns = np.concatenate([columns[keep], least.ravel()])
    return rows, columns


def _spread(n: int, most: int) -> np.ndarray:
    """Places of at most `most` of n things, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))
