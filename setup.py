"""Installs melcache; Dataflow workers install it from this same file (--setup_file=./setup.py).

The base is what a worker that prepares audio needs. Extras add the rest: [beam] to start prepare jobs, one of
[cpu], [gpu], [tpu] for TensorFlow (the builds exclude each other), [report] for pictures, [test] for the tests.
"""

import pathlib

from setuptools import setup

_HERE = pathlib.Path(__file__).parent
_TENSORFLOW = ">=2.19,<2.22"
_TRAINING = ["keras>=3.10,<4"]  # the network and the heads

setup(
    name="melcache",
    version="0.1.0",
    description="Audio to log-mel TFRecords to cached Inception-ResNet-v2 features to trained heads",
    long_description=(_HERE / "README.md").read_text(encoding="utf-8") if (_HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",  # tensorflow-io's wheels end at CPython 3.12
    packages=["beam_preprocess", "tfdata", "model", "launch"],
    package_data={"launch": ["*.html.jinja"]},
    install_requires=[
        "absl-py>=2.1",  # flags
        "fsspec>=2024.6",  # local and gs:// paths by the same calls
        "gcsfs>=2024.6",  # fsspec's gs://
        "google-crc32c>=1.5",  # checksums of TFRecord files
        "librosa>=0.10.2,<2",  # mel filters and windows
        "numpy>=2.0",
        "protobuf>=5",  # tf.train.Example without TensorFlow
        "scikit-learn>=1.5",  # the leak audit's probe, baselines
        "scipy>=1.11",  # mel filters as a sparse matrix
        "soundfile>=0.13",  # libsndfile: wav, flac, mp3, ogg, aiff
        "soxr>=0.5",  # resampling
        "threadpoolctl>=3.1",  # heads train side by side, each with one thread of BLAS
        "tqdm>=4.66",  # progress bars
        "xxhash>=3.4",  # content hashes of audio, at the speed of memory
    ],
    extras_require={
        "beam": ["apache-beam[gcp]>=2.70,<3"],
        "cpu": [f"tensorflow-cpu{_TENSORFLOW}", *_TRAINING],
        "gpu": [f"tensorflow[and-cuda]{_TENSORFLOW}", *_TRAINING],
        "tpu": ["tensorflow-tpu==2.19.1", *_TRAINING],  # the last build whose libtpu pin works; docs/architecture.md
        "report": ["jinja2>=3.1", "matplotlib>=3.9"],
        "test": ["gcp-storage-emulator>=2026.7", "pytest>=8", "ruff>=0.6", "tensorflow-datasets>=4.9.7"],
    },
    entry_points={"console_scripts": ["melcache=launch.__main__:main"]},
    classifiers=["Programming Language :: Python :: 3.11", "Programming Language :: Python :: 3.12"],
)
