"""The network on its devices: optimizer, calls of several training steps, evaluation."""

import functools

import numpy as np
import tensorflow as tf

from segthor import records
from trainer import data, devices, layers, losses, model, schedules, sources, start, step, update
from trainer.config import CLASSIFY, SEGMENT
from trainer.targets import Targets

TRUE = 2  # column of `Learner.counts` that holds the size of the true organ


class Learner:
    """A network with its moving average and optimizer, and the functions that the loop calls.

    Results do not depend on the number of replicas, apart from BatchNorm's statistics.

    config: `Config`.
    strategy: tf.distribute.Strategy of the devices.
    global_batch: Slices of a step, over all replicas.
    targets: `Targets`, from the dataset's labels to the network's channels.
    model: The network in training.
    averaged: A network with the moving average of the weights, or None.
    optimizer: Keras optimizer; holds step, learning rate and moments.
    drop: tf.Variable, factor of the learning rate in the plateau schedule.
    logits: tf.keras.Model, the network without its last activations; gives a dict by task.
    devices: Names of the devices of this process.
    compiles_update: Whether XLA compiles the update of the weights.
    """

    def __init__(
        self, config, source: sources.Source, strategy, total_steps: int, stop_asked=lambda: False
    ):
        """stop_asked: Callable from any thread; True stops the training after the next step."""
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
            self._offset = tf.Variable(0.0, trainable=False)
            self.drop = tf.Variable(1.0, trainable=False, name="drop")
        self.logits = _logits(self.model)
        self.devices = [copy.device for copy in strategy.experimental_local_results(variables[0])]
        self.compiles_update = any("GPU" in device for device in self.devices)
        averages = self.averaged.trainable_variables if self.averaged else [None] * len(variables)
        rows = zip(variables, averages, update.moments_of(self.optimizer), strict=True)
        self._weights = {value.ref(): update.Weight(value, *others) for value, *others in rows}
        self._encoder, self._frozen = layers.encoder(self.model), False

    @property
    def scored_model(self) -> tf.keras.Model:
        """The network that is validated and exported."""
        return self.averaged or self.model

    @property
    def step(self) -> int:
        """Number of steps taken."""
        return int(self.optimizer.iterations.numpy())

    @property
    def rate(self) -> float:
        """Learning rate of the last step."""
        return float(update.without_scaling(self.optimizer).learning_rate.numpy())

    def weights_on(self, index: int) -> list[update.Weight]:
        """Copies of the trainable weights on device `index` of this process."""
        variables = self.model.trainable_variables
        return [self._weights[v.ref()].on_device(index, self.strategy) for v in variables]

    def scaling_on(self, index: int):
        """Copies of float16's loss scale and its counter on a device; None without scaling."""
        scaling = update.scaling_of(self.optimizer)
        return scaling and [update.copy_on(value, index, self.strategy) for value in scaling]

    def loss_scale(self):
        """Factor of the loss in the backward pass: float32 [], 1 without scaling."""
        scaling = update.scaling_of(self.optimizer)
        return scaling[0] if scaling else 1.0

    def load_start_weights(self) -> dict:
        """Loads the weights that --start_from names; returns what `start.load_weights` returns."""
        with self.strategy.scope():
            loaded = start.load_weights(self.model, self.config)
            if self.averaged:
                self.averaged.set_weights(self.model.get_weights())
        return loaded

    def train(self, iterator, count):
        """Takes `count` steps, or fewer where a stop is requested.

        Either all of them or none may lie before `freeze_encoder_steps`.

        iterator: Yields global batches.
        count: int32 [].

        Returns the losses of the steps, float32 [steps], and the seconds spent waiting for input.
        """
        first = self.step
        frozen = first < self.config.freeze_encoder_steps
        if frozen != self._frozen:
            self._frozen = frozen
            for layer in self._encoder:  # also freezes the statistics of BatchNorm
                layer.trainable = not frozen
        return self._train(iterator, tf.constant(first), count, frozen)

    def trace_training(self, iterator):
        """Traces `train` as for a GPU; returns a tf.ConcreteFunction for `trainer.placement`."""
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
        """The compiled part of `train`.

        first: int32 [], steps taken before. The counters of the loop are int32, which TensorFlow
          keeps on the host: the loop waits for no value of the device.
        frozen: Whether the encoder is frozen; selects one of two graphs.
        """
        del frozen  # the layers already hold it while a graph is traced
        result = tf.TensorArray(tf.float32, count)
        waited = tf.constant(0.0, tf.float64)
        taken, left = tf.constant(0), count
        while left > 0:
            before = self._now()
            batch = next(iterator)
            waited += self._now() - before
            total = tf.cast(self._total, tf.float32)
            rate = schedules.learning_rate(
                self.config, first + taken, total, self.drop, self._offset
            )
            update.without_scaling(self.optimizer).learning_rate.assign(rate)
            loss = step.train_step(self, batch, first + taken, rate)
            result = result.write(taken, loss)
            taken += 1
            left = (left - 1) * self._may_continue(loss)
        return result.stack()[:taken], waited

    @tf.function
    def counts(self, batch):
        """Evaluates a global batch of N slices with K organs.

        Returns a list of three:
          int32 [N], index of the slice in the split;
          int32 [N], index of its patient;
          int32 [N, K, 3], number of pixels of intersection, prediction and truth; for a classifier
            0 or 1, the slice itself. All are 0 where the organ was not contoured.
        """
        results = self.strategy.run(self._replica_counts, (batch,))
        return [self.strategy.gather(values, 0) for values in results]

    @tf.function
    def predict(self, images):
        """Channels int32 [N, H, W] of images [N, H, W, C]; no other process need take part."""
        results = self.strategy.run(self._replica_predict, (images,))
        return self.strategy.experimental_local_results(results)[0]

    def any_process(self, value: bool) -> bool:
        """Whether the value is True in any process; all processes must call it together."""
        if not devices.several_processes():
            return value
        return float(self._sum(tf.constant(float(value)))) > 0

    def mean_over_processes(self, value: float) -> float:
        """Mean of the values of all processes, which must call it together."""
        if not devices.several_processes():
            return value
        return float(self._sum(tf.constant(value))) / self.strategy.num_replicas_in_sync

    def set_schedule(self, total_steps: int, offset: float) -> None:
        """Stretches the learning rate schedule over the length of the run, see `length.Length`."""
        self._total.assign(total_steps)
        self._offset.assign(offset)

    @tf.function
    def _sum(self, value):
        return self.strategy.reduce("SUM", self.strategy.run(tf.identity, (value,)), None)

    def _may_continue(self, loss):
        """int32 []: 1 to continue after the step with this loss, 0 to stop."""
        # The dependency keeps the order: the flag is read after each step, not once beforehand.
        with tf.control_dependencies([loss]):
            asked = tf.numpy_function(lambda: np.int32(bool(self._stop_asked())), [], tf.int32)
        asked.set_shape([])
        # All processes must stop at the same step, else the others wait for ever. A single process
        # reads its own flag on the host, so that no step waits for a value of the GPU.
        if devices.several_processes():
            asked = tf.cast(self._sum(tf.cast(asked, tf.float32)), tf.int32)
        return 1 - tf.minimum(asked, 1)

    def finish_average(self):
        """Copies BatchNorm's statistics, which are averages already, to the averaged network."""
        if not self.averaged:
            return
        # The averaged network is never frozen, so its trainable variables are all learned weights.
        learned = {id(variable) for variable in self.averaged.trainable_variables}
        for average, value in zip(self.averaged.variables, self.model.variables, strict=True):
            if id(average) not in learned:
                average.assign(value.numpy())

    def _now(self):
        """Seconds, float64 []; 0 in deterministic runs, where TensorFlow forbids a clock."""
        return tf.constant(0.0, tf.float64) if self.config.deterministic else tf.timestamp()

    def _replica_predict(self, images):
        return tf.argmax(self.scored_model(images, training=False)[SEGMENT], -1, tf.int32)

    def _replica_counts(self, batch):
        truth = self.targets.channels(batch[records.LABELS])
        contoured = self.targets.contoured(batch[records.CONTOURED])
        annotated = self.targets.annotated(batch[records.LABELS])
        if self.config.task == CLASSIFY:
            present = self.targets.present(truth)
            contoured = losses.mask_known(present, contoured, annotated)
            output = self.scored_model(batch[records.IMAGE], training=False)[CLASSIFY]
            predicted, true = output[:, None, None] > 0.5, present[:, None, None]
        else:
            channels = tf.cast(self._replica_predict(batch[records.IMAGE]), truth.dtype)
            predicted, true = self.targets.one_hot(channels), self.targets.one_hot(truth)
            if annotated is not None:
                predicted &= annotated[..., None] > 0
        masks = tf.stack([predicted & true, predicted, true], -1)
        # float32 counts the pixels of a slice exactly; int32 would be summed on the host.
        counts = tf.reduce_sum(tf.cast(masks, tf.float32), [1, 2])
        counts *= tf.cast(contoured, tf.float32)[..., None]
        return batch[data.INDEX], batch[data.OWNER], tf.cast(counts, tf.int32)


def _logits(network) -> tf.keras.Model:
    """The network without its last activations; gives a dict by task."""
    names = [layer.name for layer in network.layers if layer.name.endswith(model.LOGITS)]
    heads = {n.removesuffix(model.LOGITS): network.get_layer(n).output for n in names}
    return tf.keras.Model(network.input, heads)
