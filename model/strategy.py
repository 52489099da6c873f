"""Which devices the network runs on: a tf.distribute strategy by name, and a sentence about the choice."""

import glob
import importlib.util
import os

import tensorflow as tf

from model.backbone import first_line

AUTO, CPU, MIRRORED, TPU, MULTIWORKER = "auto", "cpu", "mirrored", "tpu", "multiworker"
NAMES = (AUTO, CPU, MIRRORED, TPU, MULTIWORKER)


class DeviceError(ValueError):
    """A device that was asked for is not there, or can't be used so."""


def choose(name: str) -> tuple[tf.distribute.Strategy, str]:
    """A strategy, and what was picked and why.

    Args:
      name: one of NAMES. AUTO takes a TPU where there is one, else all GPUs, else the CPU. MULTIWORKER is refused.
    Raises:
      DeviceError: no such device here; names those that are.
    """
    if name not in NAMES:
        raise DeviceError(f"--strategy={name}: expected one of {', '.join(NAMES)}")
    if name == MULTIWORKER:
        raise DeviceError(
            "--strategy=multiworker: extraction needs no exchange between machines, so nothing is won by it; "
            "--engine=beam takes the clips to many machines"
        )
    gpus = tf.config.list_logical_devices("GPU")
    if name == TPU or (name == AUTO and _tpu_seems_there()):
        return _tpu(name)
    if name == MIRRORED:
        return _mirrored(gpus)
    if name == AUTO and len(gpus) > 1:
        return tf.distribute.MirroredStrategy(), f"all {len(gpus)} GPUs of this machine, mirrored"
    if name == AUTO and gpus:
        return tf.distribute.OneDeviceStrategy(gpus[0].name), "the one GPU of this machine"
    why = "there is neither TPU nor GPU" if name == AUTO else "as asked for"
    return tf.distribute.OneDeviceStrategy(tf.config.list_logical_devices("CPU")[0].name), f"the CPU: {why}"


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """A global batch is divided evenly among replicas.

    Raises:
      ValueError: it can't be; names the nearest that can.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        nearest = max(replicas, round(batch_size / replicas) * replicas)
        raise ValueError(
            f"--batch_size={batch_size} can't be divided evenly among {replicas} replicas: take {nearest}, "
            "the nearest that can"
        )


def _mirrored(gpus: list) -> tuple[tf.distribute.Strategy, str]:
    if gpus:
        number = "one GPU" if len(gpus) == 1 else f"all {len(gpus)} GPUs"
        return tf.distribute.MirroredStrategy(), f"{number} of this machine, mirrored as asked for"
    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) > 1:  # somebody has divided the processor, to try it
        return tf.distribute.MirroredStrategy([cpu.name for cpu in cpus]), f"{len(cpus)} logical CPUs, mirrored"
    raise DeviceError(f"--strategy=mirrored: no GPU is here, only {_devices()}; take --strategy=cpu or auto")


def _tpu_seems_there() -> bool:
    """Without asking TensorFlow, which takes long to find that there is none, or ends the process."""
    drivers = glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")
    return bool(importlib.util.find_spec("libtpu") and drivers) or bool(os.environ.get("TPU_NAME"))


def _tpu(name: str) -> tuple[tf.distribute.Strategy, str]:
    address = os.environ.get("TPU_NAME", "local")
    if name == TPU and address == "local" and not importlib.util.find_spec("libtpu"):
        raise DeviceError(
            f"--strategy=tpu: no TPU is here (libtpu is not installed), only {_devices()}; on a TPU VM install "
            "melcache[tpu], elsewhere take --strategy=auto"
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
        if address != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
        raise DeviceError(
            f"--strategy={name}: the TPU {address} can't be used ({first_line(error)}); here are {_devices()}: take "
            "one of them with --strategy=cpu or mirrored"
        ) from error
    return strategy, f"the TPU {address} with {strategy.num_replicas_in_sync} cores"


def _devices() -> str:
    found = tf.config.list_logical_devices()
    return ", ".join(f"{device.device_type}:{device.name.rsplit(':', 1)[-1]}" for device in found)
