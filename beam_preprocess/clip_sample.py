"""Clips of a dataset's splits, read from its shards for a look at them; of large splits a sample."""

import numpy as np

from beam_preprocess.near_copies import Clips
from tfdata import schema, shards
from tfdata.spec import DatasetSpec


def read_clips(directory: str, spec: DatasetSpec, split: str, *, max_clips: int) -> Clips:
    """Whole shards of a split until there are `max_clips` of it; a shard's clips are a fair sample."""
    images, labels, ids, groups = [], [], [], []
    for shard in shards.of_split(directory, spec, split):
        for record in shards.read(shard):
            clip, image = schema.decode_clip(record, spec)
            images.append(image)
            labels.append(clip.label)
            ids.append(clip.id)
            groups.append(clip.group)
        if len(ids) >= max_clips:
            break
    return Clips(np.stack(images[:max_clips]), np.array(labels[:max_clips]), ids[:max_clips], groups[:max_clips])
