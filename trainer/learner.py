"""What runs on the devices: the network with its optimizer, calls of several steps, evaluation."""

import functools

import numpy as np
import tensorflow as tf

from segthor import records
from trainer import data, devices, layers, losses, model, schedules, sources, start, step, update
from trainer.config import CLASSIFY, SEGMENT
from trainer.targets import Targets

TRUE = 2  # where the counts say how large the organ is


class Learner:
    """Network, moving average, optimizer, and the functions that the loop calls.

    The sum of the slices' losses is divided by the global batch and gradients are summed over the
    replicas, so that it does not matter how many there are (BatchNorm's statistics aside).
    """

    def __init__(
        self, config, source: sources.Source, strategy, total_steps: int, stop_asked=lambda: False
    ):
        """stop_asked: says, from any thread, whether training is to stop after the next step."""
        self._stop_asked = stop_asked
        self.config, self.strategy = config, strategy
        self.global_batch = config.batch_size * strategy.num_replicas_in_sync
        has_ignored = source.dataset.has_ignored
        self.targets = Targets(source.organs, config.organs, has_ignored)
        with strategy.scope():
            self.model = model.build(config, source.size_px, source.context)
            self.averaged = None
            if config.ema:
                self.averaged = model.build(config, source.size_px, source.context)
                self.averaged.set_weights(self.model.get_weights())
            variables = self.model.trainable_variables
            self.optimizer = update.make_optimizer(config, variables)
            self._total = tf.Variable(total_steps, trainable=False, dtype=tf.int64)
            self.drop = tf.Variable(1.0, trainable=False, name="drop")  # of the plateau schedule
        self.logits = _logits(self.model)
        self.devices = [copy.device for copy in strategy.experimental_local_results(variables[0])]
        self.compiles_update = any("GPU" in device for device in self.devices)
        averages = self.averaged.trainable_variables if self.averaged else [None] * len(variables)
        rows = zip(variables, averages, update.moments_of(self.optimizer), strict=True)
        self._weights = {value.ref(): update.Weight(value, *others) for value, *others in rows}
        self._encoder, self._frozen = layers.encoder(self.model), False

    @property
    def scored(self) -> tf.keras.Model:
        """The network that is validated and exported."""
        return self.averaged or self.model

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.optimizer.iterations.numpy())

    @property
    def rate(self) -> float:
        """The learning rate of the step last taken."""
        return float(update.without_scaling(self.optimizer).learning_rate.numpy())

    def weights_on(self, place: int) -> list[update.Weight]:
        """The trainable weights' copies on device number `place` of this process."""
        variables = self.model.trainable_variables
        return [self._weights[v.ref()].on_device(place, self.strategy) for v in variables]

    def scaling_on(self, place: int):
        """The copies of float16's loss scale and its counter on a device; None without scaling."""
        scaling = update.scaling_of(self.optimizer)
        if scaling is None:
            return None
        return [update.copy_on(variable, place, self.strategy) for variable in scaling]

    def loss_scale(self):
        """What the loss is multiplied by before its gradients are taken."""
        scaling = update.scaling_of(self.optimizer)
        return scaling[0] if scaling else 1.0

    def start_from(self) -> dict:
        """Takes the first weights from where the configuration says; see `start.begin`."""
        with self.strategy.scope():
            taken = start.begin(self.model, self.config)
            if self.averaged:
                self.averaged.set_weights(self.model.get_weights())
        return taken

    def train(self, iterator, count):
        """Takes `count` steps, or fewer where it is asked to stop.

        All or none of them are below `freeze_encoder_steps`. Gives the losses of the steps taken,
        float32 [steps], and seconds spent waiting for input.
        """
        first = self.step
        frozen = first < self.config.freeze_encoder_steps
        if frozen != self._frozen:
            self._frozen = frozen
            for layer in self._encoder:  # BatchNorm then leaves its statistics alone, too
                layer.trainable = not frozen
        return self._train(iterator, tf.constant(first), count, frozen)

    def trace_training(self, iterator):
        """The tf.ConcreteFunction of `train` as it is on a GPU, for `trainer.placement`."""
        before, self.compiles_update = self.compiles_update, True
        try:
            fresh = tf.function(functools.partial(Learner._train.python_function, self))
            return fresh.get_concrete_function(
                iterator, tf.constant(0), tf.constant(1), self._frozen
            )
        finally:
            self.compiles_update = before

    @tf.function
    def _train(self, iterator, first, count, frozen: bool):
        """`train`, whose loop needs no value from the device but the stop flag of several hosts.

        first: the steps taken before, int32 []. TensorFlow computes with int32 on the host, so that
        the loop's counters stay there.
        """
        del frozen  # one graph for each, made while the layers are as it says
        result = tf.TensorArray(tf.float32, count)
        waited = tf.constant(0.0, tf.float64)
        taken, left = tf.constant(0), count
        while left > 0:
            before = self._now()
            batch = next(iterator)
            waited += self._now() - before
            total = tf.cast(self._total, tf.float32)
            rate = schedules.learning_rate(self.config, first + taken, total, self.drop)
            update.without_scaling(self.optimizer).learning_rate.assign(rate)
            loss = step.train_step(self, batch, first + taken, rate)
            result = result.write(taken, loss)
            taken += 1
            left = (left - 1) * self._goes_on_after(loss)
        return result.stack()[:taken], waited

    @tf.function
    def counts(self, batch):
        """Evaluates a global batch: place in the split and patient, int32 [N]; int32 [N, K, 3].

        Counts are of voxels per slice and organ: intersection, predicted, true; a classifier's
        are of slices. They are 0 where the organ was not contoured.
        """
        found = self.strategy.run(self._replica_counts, (batch,))
        return [self.strategy.gather(values, 0) for values in found]

    @tf.function
    def predict(self, images):
        """Channels int32 [N, H, W] of a few slices; each process can call it by itself."""
        found = self.strategy.run(self._replica_predict, (images,))
        return self.strategy.experimental_local_results(found)[0]

    def in_any_process(self, here: bool) -> bool:
        """Whether it is so in any process: they must stop at the same step or wait for ever."""
        if not devices.several_processes():
            return here
        return float(self._sum(tf.constant(float(here)))) > 0

    def mean_of_processes(self, value: float) -> float:
        """The same in every process, from what each of them measured."""
        if not devices.several_processes():
            return value
        return float(self._sum(tf.constant(value))) / self.strategy.num_replicas_in_sync

    def lay_schedule(self, total_steps: int) -> None:
        """Lays the learning rate's schedule over so many steps, those taken included."""
        self._total.assign(total_steps)

    @tf.function
    def _sum(self, value):
        return self.strategy.reduce("SUM", self.strategy.run(tf.identity, (value,)), None)

    def _goes_on_after(self, loss):
        """int32 []: 0 where any process is asked to stop, once the step with this loss is issued.

        One process alone asks on its host, so that no step waits for a value from a GPU.
        """
        with tf.control_dependencies([loss]):
            asked = tf.numpy_function(lambda: np.int32(bool(self._stop_asked())), [], tf.int32)
        asked.set_shape([])
        if devices.several_processes():
            asked = tf.cast(self._sum(tf.cast(asked, tf.float32)), tf.int32)
        return 1 - tf.minimum(asked, 1)

    def finish_average(self):
        """Gives the moving average the BatchNorm statistics, which are averages already."""
        if self.averaged:
            for average, value in self._pairs(learned=False):
                average.assign(value.numpy())

    def _pairs(self, learned: bool):
        """(of the average, of the network) weights that are learned, or BatchNorm's statistics.

        The average is never frozen, so it says which are which.
        """
        ids = {id(variable) for variable in self.averaged.trainable_variables}
        pairs = zip(self.averaged.variables, self.model.variables, strict=True)
        return [(average, value) for average, value in pairs if (id(average) in ids) == learned]

    def _now(self):
        """Seconds; always 0 where results must be repeatable, which TensorFlow denies a clock."""
        return tf.constant(0.0, tf.float64) if self.config.deterministic else tf.timestamp()

    def _replica_predict(self, images):
        return tf.argmax(self.scored(images, training=False)[SEGMENT], -1, tf.int32)

    def _replica_counts(self, batch):
        truth = self.targets.channels(batch[records.LABELS])
        contoured = self.targets.contoured(batch[records.CONTOURED])
        annotated = self.targets.annotated(batch[records.LABELS])
        if self.config.task == CLASSIFY:
            contoured = losses.known(self.targets.present(truth), contoured, annotated)
            output = self.scored(batch[records.IMAGE], training=False)[CLASSIFY]
            predicted = output[:, None, None] > 0.5
            true = self.targets.present(truth)[:, None, None]
        else:
            channels = tf.cast(self._replica_predict(batch[records.IMAGE]), truth.dtype)
            predicted, true = self.targets.one_hot(channels), self.targets.one_hot(truth)
            if annotated is not None:
                predicted &= annotated[..., None] > 0
        masks = tf.stack([predicted & true, predicted, true], -1)
        # float32 counts a slice's pixels exactly; sums of int32 would be the host's.
        counts = tf.reduce_sum(tf.cast(masks, tf.float32), [1, 2])
        counts *= tf.cast(contoured, tf.float32)[..., None]
        return batch[data.INDEX], batch[data.OWNER], tf.cast(counts, tf.int32)


def _logits(network) -> tf.keras.Model:
    """The network without its last activations: a dict by task."""
    names = [layer.name for layer in network.layers if layer.name.endswith(model.LOGITS)]
    heads = {n.removesuffix(model.LOGITS): network.get_layer(n).output for n in names}
    return tf.keras.Model(network.input, heads)
