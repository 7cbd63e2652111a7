"""What runs on the devices: the network with its optimizer, one training step, one evaluation."""

import numpy as np
import tensorflow as tf

from segthor import records
from segthor.organs import Organs
from trainer import augment, data, devices, layers, losses, model, schedules, sources, start
from trainer.config import CLASSIFY, SEGMENT
from trainer.exchange import exchange_sides

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
        self._channel = tf.constant(_channels(source.organs, config.organs), tf.int32)
        self._places = tf.constant(source.organs.places(config.organs))
        self._table = source.organs
        with strategy.scope():
            self.model = model.build(config, source.size_px, source.context)
            self.averaged = None
            if config.ema:
                self.averaged = model.build(config, source.size_px, source.context)
                self.averaged.set_weights(self.model.get_weights())
            self.optimizer = _optimizer(config)
            self.optimizer.build(self.model.trainable_variables)
            self._total = tf.Variable(total_steps, trainable=False, dtype=tf.int64)
            self.drop = tf.Variable(1.0, trainable=False, name="drop")  # of the plateau schedule
        self.logits = _logits(self.model)
        self._encoder, self._frozen = layers.encoder(self.model), False
        # Summing over replicas cannot be compiled, so each replica's share is.
        self._own_gradients = (
            tf.function(self._share, jit_compile=True) if config.xla else self._share
        )

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
        return float(_plain(self.optimizer).learning_rate.numpy())

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
        frozen = self.step < self.config.freeze_encoder_steps
        if frozen != self._frozen:
            self._frozen = frozen
            for layer in self._encoder:  # BatchNorm then leaves its statistics alone, too
                layer.trainable = not frozen
        return self._train(iterator, count, frozen)

    @tf.function
    def _train(self, iterator, count, frozen: bool):
        del frozen  # one graph for each, made while the layers are as it says
        result = tf.TensorArray(tf.float32, count)
        waited = tf.constant(0.0, tf.float64)
        i, stopping = tf.constant(0), tf.constant(False)
        while i < count and not stopping:
            before = self._now()
            batch = next(iterator)
            waited += self._now() - before
            step = self.optimizer.iterations
            total = tf.cast(self._total, tf.float32)
            rate = schedules.learning_rate(self.config, step, total, self.drop)
            _plain(self.optimizer).learning_rate.assign(rate)
            loss = self.strategy.run(self._replica_step, (batch,))
            loss = self.strategy.reduce("SUM", loss, None)
            result = result.write(i, loss)
            self._average()
            stopping = self._stopping_after(loss)
            i += 1
        return result.stack()[:i], waited

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

    def _stopping_after(self, loss):
        """bool []: whether any process is asked to stop, once the step with this loss is computed.

        One process alone asks on its host, so that no step waits for a value from a GPU.
        """
        with tf.control_dependencies([loss]):
            asked = tf.numpy_function(lambda: np.float32(self._stop_asked()), [], tf.float32)
        asked.set_shape([])
        return (self._sum(asked) if devices.several_processes() else asked) > 0

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

    def gradients(self, batch):
        """In a replica: its share of the loss, and the gradient summed over all replicas."""
        truth, contoured = self._truth(batch[records.LABELS]), self._contoured(batch)
        images = batch[records.IMAGE]
        loss, found = self._own_gradients(images, truth, contoured, self._frozen)
        return loss, tf.distribute.get_replica_context().all_reduce("SUM", found)

    def _share(self, images, truth, contoured, frozen: bool):
        """One replica's share of loss and gradient, before it meets the others'."""
        del frozen  # see `_train`
        with tf.GradientTape() as tape:
            logits = self.logits(images, training=True)
            loss = tf.reduce_sum(self._losses(logits, truth, contoured)) / self.global_batch
            scaled = _scale(self.optimizer, loss)
        return loss, _unscale(self.optimizer, tape.gradient(scaled, self.model.trainable_variables))

    def _replica_step(self, batch):
        seed = tf.stack([self.config.seed, tf.cast(self.optimizer.iterations, tf.int32)])
        drawn = batch[data.INDEX], seed, self.config.augment
        image, labels = augment.augment(batch[records.IMAGE], batch[records.LABELS], *drawn)
        labels, contoured = exchange_sides(labels, batch[records.CONTOURED], *drawn, self._table)
        moved = {records.IMAGE: image, records.LABELS: labels, records.CONTOURED: contoured}
        loss, gradient = self.gradients(batch | moved)
        if self.config.clip_norm:
            gradient, _ = tf.clip_by_global_norm(gradient, self.config.clip_norm)
        self.optimizer.apply_gradients(
            zip(gradient, self.model.trainable_variables, strict=True),
            skip_gradients_aggregation=True,  # `gradients` has summed them
        )
        return loss

    def _now(self):
        """Seconds; always 0 where results must be repeatable, which TensorFlow denies a clock."""
        return tf.constant(0.0, tf.float64) if self.config.deterministic else tf.timestamp()

    def _average(self):
        if self.averaged is None:
            return
        step = tf.cast(self.optimizer.iterations, tf.float32)
        decay = tf.minimum(self.config.ema, (1 + step) / (10 + step))  # forget the random start
        for average, value in self._pairs(learned=True):
            self.strategy.extended.update(
                average, lambda a, v, d: a.assign_sub((1 - d) * (a - v)), args=(value, decay)
            )

    def _losses(self, logits, truth, contoured):
        kind, total = self.config.loss, 0.0
        if SEGMENT in logits:
            total += losses.segment(kind, logits[SEGMENT], truth, contoured)
        if CLASSIFY in logits:
            present = _present(truth, len(self.config.organs))
            loss = losses.classify(kind, logits[CLASSIFY], present, contoured)
            total += loss if self.config.task == CLASSIFY else losses.CLASSIFY_SHARE * loss
        return total

    def _replica_predict(self, images):
        return tf.argmax(self.scored(images, training=False)[SEGMENT], -1, tf.int32)

    def _replica_counts(self, batch):
        truth = self._truth(batch[records.LABELS])
        count = len(self.config.organs)
        if self.config.task == CLASSIFY:
            output = self.scored(batch[records.IMAGE], training=False)[CLASSIFY]
            predicted, true = output[:, None, None] > 0.5, _present(truth, count)[:, None, None]
        else:
            predicted = _one_hot(self._replica_predict(batch[records.IMAGE]), count)
            true = _one_hot(truth, count)
        masks = tf.stack([predicted & true, predicted, true], -1)
        counts = tf.reduce_sum(tf.cast(masks, tf.int32), [1, 2])
        counts *= tf.cast(self._contoured(batch), tf.int32)[..., None]
        return batch[data.INDEX], batch[data.OWNER], counts

    def _truth(self, labels):
        """Label values to the network's channels: organs that it does not learn are background."""
        return tf.gather(self._channel, tf.cast(labels, tf.int32))

    def _contoured(self, batch):
        return tf.gather(batch[records.CONTOURED], self._places, axis=1)


def _logits(network) -> tf.keras.Model:
    """The network without its last activations: a dict by task."""
    names = [layer.name for layer in network.layers if layer.name.endswith(model.LOGITS)]
    heads = {n.removesuffix(model.LOGITS): network.get_layer(n).output for n in names}
    return tf.keras.Model(network.input, heads)


def _channels(organs: Organs, names) -> list[int]:
    """By label value: the network's channel of the organ, 0 where it does not learn it."""
    chosen = {label: channel for channel, label in enumerate(organs.labels(names), 1)}
    return [chosen.get(label, 0) for label in range(1 + organs.highest_label)]


def _one_hot(truth, count):
    return truth[..., None] == tf.range(1, count + 1)


def _present(truth, count):
    return tf.reduce_any(_one_hot(truth, count), [1, 2])


def _optimizer(config):
    common = {"learning_rate": config.learning_rate, "jit_compile": False}
    common["weight_decay"] = config.weight_decay or None
    if config.optimizer == "adamw":
        optimizer = tf.keras.optimizers.AdamW(**common)
    else:
        optimizer = tf.keras.optimizers.SGD(momentum=0.9, nesterov=True, **common)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if config.precision == "float16":
        return tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer


def _plain(optimizer):
    return getattr(optimizer, "inner_optimizer", optimizer)


def _scale(optimizer, loss):
    return optimizer.get_scaled_loss(loss) if optimizer is not _plain(optimizer) else loss


def _unscale(optimizer, gradient):
    if optimizer is _plain(optimizer):
        return gradient
    return optimizer.get_unscaled_gradients(gradient)
