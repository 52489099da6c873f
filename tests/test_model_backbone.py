"""The network: its shape, the image it is given, and its weights."""

import dataclasses
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from model import backbone as backbones
from model.frozen_network import FrozenNetwork


@pytest.fixture(scope="module")
def backbone():
    network = backbones.build_backbone(150)
    backbones.randomise(network, seed=0)
    return network


def test_features_are_3_by_3_by_1536(backbone):
    assert backbone.output_shape == (None, 3, 3, 1536)
    assert backbone.count_params() == 54_336_736  # as the source system reports
    with pytest.raises(ValueError, match="139 to 170"):
        backbones.build_backbone(128)


def test_late_image_equals_interpolation_by_hand():
    settings = backbones.ImageSettings(low=-23.0, high=8.0)
    log_mel = np.random.default_rng(0).uniform(-23, 8, (2, 128, 12)).astype(np.float32)
    images = backbones.LateImage(settings)(log_mel).numpy()
    assert images.shape == (2, 150, 150, 3)

    def stretched(values, size):  # linear between pixel centres, along the last axis
        places = (np.arange(size) + 0.5) * values.shape[-1] / size - 0.5
        return np.apply_along_axis(lambda row: np.interp(places, np.arange(len(row)), row), -1, values)

    expected = stretched(np.swapaxes(stretched((log_mel + 23) / 31 * 2 - 1, 150), 1, 2), 150).swapaxes(1, 2)
    for channel in range(3):
        np.testing.assert_allclose(images[..., channel], expected, atol=3e-5)
    assert images.min() >= -1 and images.max() <= 1


def test_late_image_survives_saving(tmp_path):
    model = keras.Sequential(
        [keras.Input((128, 12)), backbones.LateImage(backbones.ImageSettings(low=-20.0, high=5.0))]
    )
    model.save(tmp_path / "image.keras")
    log_mel = np.random.default_rng(0).normal(-10, 5, (1, 128, 12)).astype(np.float32)
    loaded = keras.models.load_model(tmp_path / "image.keras")
    np.testing.assert_array_equal(loaded(log_mel), model(log_mel))


def test_random_weights_follow_from_the_seed(backbone):
    digest = backbones.weights_digest(backbone)
    other = backbones.build_backbone(150)
    backbones.randomise(other, seed=1)
    assert backbones.weights_digest(other) != digest
    backbones.randomise(other, seed=0)
    assert backbones.weights_digest(other) == digest


def test_weights_files_load_whatever_their_kind(backbone, tmp_path):
    digest = backbones.weights_digest(backbone)
    other = backbones.build_backbone(150)
    for name in ("w.weights.h5", "w.h5"):
        backbone.save_weights(str(tmp_path / "w.weights.h5"))
        if name == "w.h5":  # as Keras 2 wrote ImageNet's
            import h5py
            from keras.src.legacy.saving import legacy_h5_format

            with h5py.File(tmp_path / name, "w") as file:
                legacy_h5_format.save_weights_to_hdf5_group(file, backbone)
        backbones.randomise(other, seed=5)
        backbones.load_weights(other, str(tmp_path / name))
        assert backbones.weights_digest(other) == digest, name


def test_weights_that_do_not_fit_are_refused(backbone, tmp_path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "words.h5").write_text("no weights")
    for name in ("other.weights.h5", "words.h5"):
        with pytest.raises(backbones.WeightsError, match=f"{name} does not fit Inception-ResNet-v2"):
            backbones.load_weights(backbone, str(tmp_path / name))
    with pytest.raises(backbones.WeightsError, match="no such file"):
        backbones.load_weights(backbone, str(tmp_path / "nowhere.weights.h5"))
    with pytest.raises(backbones.WeightsError, match="expected 'imagenet', 'random' or"):
        backbones.load_weights(backbone, "imagnet")


def test_a_weights_file_that_lacks_a_layer_is_refused(backbone, tmp_path):
    import h5py

    backbone.save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5", "a") as file:
        del file["layers"]["conv2d_17"]
    with pytest.raises(backbones.WeightsError, match="does not fit"):
        backbones.load_weights(backbones.build_backbone(150), str(tmp_path / "w.weights.h5"))


def test_calibration_gives_features_a_scale(backbone):
    images = tf.random.Generator.from_seed(0).uniform((16, 150, 150, 3), -1, 1)
    before = backbone(images, training=False).numpy()
    network = keras.models.clone_model(backbone)
    network.set_weights(backbone.get_weights())
    backbones.calibrate(network, [images] * 20)
    after = network(images, training=False).numpy()
    assert before.std() < 0.05 < 0.2 < after.std() < 2.0
    for ours, kernel in zip(backbone.trainable_variables, network.trainable_variables):
        np.testing.assert_array_equal(ours, kernel)  # only statistics have moved


def test_a_frozen_network_is_the_same_wherever_it_is_built(backbone):
    image = backbones.ImageSettings(low=-20.0, high=5.0)
    digest = backbones.weights_digest(backbone)
    network = FrozenNetwork(weights="random", image=image, weights_digest=digest)
    log_mel = np.random.default_rng(0).uniform(-20, 5, (2, 128, 12)).astype(np.float32)
    expected = backbone(backbones.LateImage(image)(log_mel), training=False).numpy()
    sent = pickle.loads(pickle.dumps(network))
    np.testing.assert_allclose(sent.build((128, 12))(log_mel), expected, atol=1e-7)

    pooled = dataclasses.replace(network, pooled=True, compute_precision="bfloat16")
    features = pooled.build((128, 12))(log_mel)
    assert features.dtype == tf.float32 and features.shape == (2, *pooled.feature_shape)
    error = np.abs(features - expected.mean(axis=(1, 2))).max() / expected.std()
    assert 1e-5 < error < 0.1  # it did compute in bfloat16

    with pytest.raises(backbones.WeightsError, match=f"expected {digest[:12]}: random.*seed"):
        dataclasses.replace(network, seed=1).build((128, 12))
