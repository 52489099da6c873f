"""A trained head as a Keras model of plain layers, for those who take it elsewhere."""

import keras
import numpy as np

from model.head_inputs import HeadInputs
from model.heads import TrainedHead


def keras_head(inputs: HeadInputs, head: TrainedHead) -> keras.Model:
    """Features as stored, float32 [n, *shape], to probabilities [n, classes].

    Pooling and standardisation are its first layers, so that the statistics travel with it.
    """
    layers = [keras.Input(inputs.feature_shape, name="feature")]
    if inputs.pooling == "average" and len(inputs.feature_shape) > 1:
        layers.append(keras.layers.GlobalAveragePooling2D(name="pool"))
    variance = np.square(inputs.standardiser.std, dtype=np.float32)
    layers += [
        keras.layers.Flatten(),
        keras.layers.Normalization(mean=inputs.standardiser.mean, variance=variance, name="standardise"),
    ]
    model = keras.Sequential(layers)
    arrays = head.make_layers()
    for depth, (kernel, bias) in enumerate(arrays):
        activation = "softmax" if depth == len(arrays) - 1 else "relu"
        layer = keras.layers.Dense(len(bias), activation=activation, name=f"dense_{depth}")
        model.add(layer)
        layer.set_weights([kernel, bias])
    return model
