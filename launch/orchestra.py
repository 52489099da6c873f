"""A small synthetic orchestra: the source system's seven instruments by additive synthesis, for demo and tests.

Not a likeness of real instruments: what distinguishes the classes is the strength of the partials, how fast they come
and go, vibrato and breath. Real recordings are harder and more varied.
"""

import csv
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import soundfile

from tfdata import storage

_DURATION_S = 1.3
# Each recording in the next of these, as recordings from many sources would be.
_FORMATS = [("wav", 44_100, 1), ("flac", 48_000, 2), ("ogg", 44_100, 1), ("aiff", 22_050, 1), ("mp3", 44_100, 2)]
DYNAMICS = {"pp": 0.08, "mf": 0.3, "f": 0.7}  # peak amplitude


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instrument:
    """How an instrument is synthesised.

    Attributes:
      low, high: lowest and highest note, MIDI numbers.
      rolloff: partial n has strength n ** -rolloff at mezzo forte; louder notes are brighter.
      formant_hz: partials near it are strengthened.
      odd: strength of even partials against odd ones, 1 for alike.
      attack_s: time to full strength; higher partials come later.
      decay_s: time in which a note falls to 1/e; infinity for one that is held.
      vibrato_cents: depth of the vibrato.
      breath: strength of the noise in the tone, which lies about formant_hz.
    """

    low: int
    high: int
    rolloff: float
    formant_hz: float
    odd: float = 1.0
    attack_s: float = 0.05
    decay_s: float = float("inf")
    vibrato_cents: float = 0.0
    breath: float = 0.0


# Ranges as in the thesis's collection.
INSTRUMENTS = {
    "cello": Instrument(low=36, high=73, rolloff=1.2, formant_hz=600, attack_s=0.09, vibrato_cents=18, breath=0.02),
    "double-bass": Instrument(low=28, high=64, rolloff=1.6, formant_hz=250, attack_s=0.12, decay_s=1.2, breath=0.03),
    "flute": Instrument(low=60, high=98, rolloff=2.4, formant_hz=900, attack_s=0.07, vibrato_cents=12, breath=0.08),
    "oboe": Instrument(low=58, high=91, rolloff=0.7, formant_hz=1_400, attack_s=0.03, vibrato_cents=8, breath=0.015),
    "trumpet": Instrument(low=54, high=80, rolloff=0.9, formant_hz=2_200, attack_s=0.025, breath=0.012),
    "tuba": Instrument(low=29, high=65, rolloff=2.0, formant_hz=350, odd=0.8, attack_s=0.06, breath=0.04),
    "violin": Instrument(low=55, high=104, rolloff=1.0, formant_hz=2_800, attack_s=0.06, vibrato_cents=25, breath=0.02),
}


def synthesise(instrument: Instrument, midi: int, loudness: float, *, sample_rate_hz: int, rng: np.random.Generator):
    """One note: float64 [samples], its peak at `loudness` (0 to 1)."""
    time_s = np.arange(int(_DURATION_S * sample_rate_hz)) / sample_rate_hz
    detune_cents = rng.normal(0, 6)
    pitch_hz = 440.0 * 2 ** ((midi - 69 + detune_cents / 100) / 12)
    vibrato = (
        instrument.vibrato_cents / 1200 * np.sin(2 * np.pi * rng.uniform(4.8, 6.2) * time_s + rng.uniform(0, 6.28))
    )
    phase = 2 * np.pi * np.cumsum(pitch_hz * 2**vibrato) / sample_rate_hz
    rolloff = instrument.rolloff * (1.25 - 0.5 * loudness)
    note = np.zeros_like(time_s)
    for n in range(1, 1 + min(40, int(0.45 * sample_rate_hz / pitch_hz))):
        strength = n**-rolloff * (instrument.odd if n % 2 == 0 else 1.0) * rng.uniform(0.8, 1.2)
        strength *= 1 + 3 * np.exp(-((np.log2(n * pitch_hz / instrument.formant_hz)) ** 2) / 0.3)
        attack_s = instrument.attack_s * (0.7 + 0.06 * n) * rng.uniform(0.8, 1.2)
        note += strength * np.sin(n * phase + rng.uniform(0, 6.28)) * (1 - np.exp(-time_s / attack_s))
    note /= np.abs(note).max()
    note += instrument.breath * _breath(len(time_s), instrument.formant_hz, sample_rate_hz, rng)
    note *= np.exp(-time_s / instrument.decay_s) * np.minimum(1, (_DURATION_S - time_s) / 0.08)
    return loudness * note / np.abs(note).max()


def _breath(num_samples: int, formant_hz: float, sample_rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """The noise of bow or breath: white noise through a body that resonates at formant_hz, of unit variance."""
    frequency_hz = np.fft.rfftfreq(num_samples, 1 / sample_rate_hz)
    octaves_away = np.log2(np.maximum(frequency_hz, 20.0) / formant_hz)
    shaped = np.fft.irfft(np.fft.rfft(rng.standard_normal(num_samples)) * np.exp(-(octaves_away**2)), num_samples)
    return shaped / shaped.std()


def write_orchestra(
    directory: str,
    *,
    num_pitches: int,
    seed: int,
    instruments: Sequence[str] = tuple(INSTRUMENTS),
    dynamics: Sequence[str] = tuple(DYNAMICS),
) -> str:
    """Write notes in a folder for each instrument, one broken file in some of the folders, and a manifest.

    Args:
      num_pitches: evenly over each instrument's range.
      seed: of the small differences between notes.
      instruments: of INSTRUMENTS.
      dynamics: of DYNAMICS; each pitch is played at each.
    Returns:
      the manifest's path: path, label, pitch, dynamic, group (instrument and pitch, whose notes are near-copies).
    """
    rows = []
    for name in instruments:
        instrument = INSTRUMENTS[name]
        for index, midi in enumerate(np.linspace(instrument.low, instrument.high, num_pitches).round().astype(int)):
            for step, dynamic in enumerate(dynamics):
                extension, rate_hz, channels = _FORMATS[(index * len(dynamics) + step) % len(_FORMATS)]
                rng = np.random.default_rng([seed, midi, step, *name.encode()])
                note = synthesise(instrument, int(midi), DYNAMICS[dynamic], sample_rate_hz=rate_hz, rng=rng)
                path = f"{name}/{name}_{midi}_{dynamic}.{extension}"
                file = io.BytesIO()
                soundfile.write(file, np.stack([note] * channels, axis=1), rate_hz, format=extension.upper())
                storage.write_bytes(storage.join(directory, path), file.getvalue())
                rows.append({"path": path, "label": name, "pitch": midi, "dynamic": dynamic, "group": f"{name}_{midi}"})
    for path, content in _broken_files().items():
        label = path.split("/")[0]
        if label in instruments:
            storage.write_bytes(storage.join(directory, path), content)
            rows.append({"path": path, "label": label, "pitch": "", "dynamic": "", "group": path})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    manifest = storage.join(directory, "notes.csv")
    storage.write_text(manifest, text.getvalue())
    return manifest


def _broken_files() -> dict[str, bytes]:
    """Empty, cut off in its header, no audio at all, and samples that are not numbers."""
    whole, not_numbers = io.BytesIO(), io.BytesIO()
    soundfile.write(whole, np.zeros(1000), 44_100, format="WAV")
    soundfile.write(not_numbers, np.full(1000, np.nan), 44_100, format="WAV", subtype="FLOAT")
    return {
        "cello/not_numbers.wav": not_numbers.getvalue(),
        "flute/no_audio.wav": b"These are words and no sound.\n",
        "oboe/empty.mp3": b"",
        "tuba/cut_off.wav": whole.getvalue()[:30],
    }
