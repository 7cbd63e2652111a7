"""Audit of a traced function: which operations would not run on a GPU. No GPU is needed.

TensorFlow's wheel is built with CUDA and lists all GPU kernels: the dtypes that each supports, and
which of its arguments lie in host memory. A traced function lists its operations with dtypes,
shapes and the line of Python that made them. Together they show what soft placement silently moves
to the CPU, and how many operations a step launches.
"""

import functools
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tensorflow.python.framework import kernels

LARGE = 4096  # elements above which copying a tensor to the host takes longer than a launch
PARTS = ("augmentation", "network", "loss", "gradients", "update", "rest")
AUGMENTATION, NETWORK, LOSS, GRADIENTS, UPDATE, REST = PARTS
_UNKNOWN_SIDE = 16  # assumed size of a dimension without a static size
_ROOT = str(Path(__file__).resolve().parents[1]) + "/"
# The stop flag and the clock run on the host on purpose, and read nothing from the device.
_ON_HOST = ("EagerPyFunc", "PyFunc", "Timestamp")
_LOOPS = ("While", "StatelessWhile")
# These rename a tensor, read a shape, pass a buffer on or control the runtime; no kernel runs.
_NO_LAUNCH = frozenset(
    "AssignVariableOp Bitcast BroadcastGradientArgs ConcatOffset Const ExpandDims Identity "
    "IdentityN If NoOp PartitionedCall Placeholder PreventGradient Rank ReadVariableOp Reshape "
    "Shape ShapeN Size Squeeze StatefulPartitionedCall StatelessIf StatelessWhile StopGradient "
    "VarHandleOp While".split()
)
_PART_OF_MODULE = {
    **dict.fromkeys(("augment", "warp", "appearance", "draws", "exchange"), AUGMENTATION),
    **dict.fromkeys(("losses", "targets"), LOSS),
    **{"update": UPDATE, "model": NETWORK},
}
_PART_OF_COMPILED = {"_compute_gradients": NETWORK, "_update_weights": UPDATE}


@dataclass(frozen=True)
class Operation:
    """An operation of a traced function.

    kind: Type of the operation, e.g. GatherV2.
    dtype: dtype of the largest tensor concerned.
    shape: Shape of that tensor.
    part: Part of the step, one of PARTS.
    line: Line of the project that made it, as file:number.
    """

    kind: str
    dtype: str
    shape: tuple
    part: str
    line: str

    def __str__(self):
        return f"{self.kind} of {self.dtype} {list(self.shape)} ({self.part}, {self.line})"


@dataclass
class Audit:
    """The operations of a traced function, as they would run on a GPU.

    without_kernel: Operations that soft placement runs on the CPU.
    in_host_memory: Operations whose GPU kernel keeps large tensors in host memory.
    loops: Loops; every iteration launches the operations inside again.
    to_host: Operations whose result must be copied from the device to the host.
    launches: Part to the number of operations that compute; a function that XLA compiles counts
      as one.
    """

    without_kernel: list[Operation] = field(default_factory=list)
    in_host_memory: list[Operation] = field(default_factory=list)
    loops: list[Operation] = field(default_factory=list)
    to_host: list[Operation] = field(default_factory=list)
    launches: Counter = field(default_factory=Counter)


def audit(function) -> Audit:
    """Audits a tf.ConcreteFunction and all functions that it calls."""
    result = Audit()
    _audit_graph(function.graph, result)
    return result


def _audit_graph(graph, result: Audit) -> set[int]:
    """Adds a graph to the audit; returns the ids of its tensors that lie on the device."""
    on_device = set()
    for op in graph.get_operations():
        inner = [] if _is_compiled(op) else _functions(op)
        if op.type in _LOOPS:
            result.loops.append(_describe(op, op.outputs))
        for attribute, function in inner:
            there = _audit_graph(function.graph, result)
            if attribute == "cond":  # the runtime reads the condition of a loop on the host
                _add_copies_to_host(function.graph.outputs, there, result)
        wanted, host = _host_tensors(op, bool(inner), result)
        _add_copies_to_host(wanted, on_device, result)
        made = {id(tensor) for tensor in op.outputs} - {id(tensor) for tensor in host}
        if op.type == "Identity":  # removed by the runtime: the result lies where the input does
            made = made if id(op.inputs[0]) in on_device else set()
        on_device |= made
        # Arithmetic on shapes and counters runs on the host and launches nothing.
        if _is_compiled(op) or (op.type not in _NO_LAUNCH and (made or not op.outputs)):
            result.launches[_find_part(op)] += 1
    return on_device


def _host_tensors(op, calls: bool, result: Audit):
    """Returns the inputs and the outputs of an operation that lie in host memory.

    Adds the operation to the audit if it has no kernel or keeps large tensors there.
    """
    if calls or _is_compiled(op) or op.type == "Placeholder":
        # Functions pass int32 in host memory and all other dtypes on the device.
        int32 = [[t for t in side if t.dtype.name == "int32"] for side in (op.inputs, op.outputs)]
        if op.type != "Placeholder" and any(_elements(t) >= LARGE for side in int32 for t in side):
            result.in_host_memory.append(_describe(op, [*int32[0], *int32[1]]))
        return int32
    kernel = _find_kernel(op)
    if kernel is None:
        if op.type not in _ON_HOST:
            result.without_kernel.append(_describe(op, [*op.inputs, *op.outputs]))
        return op.inputs, op.outputs
    wanted = _in_host_memory(op, kernel, op.op_def.input_arg, op.inputs)
    host = _in_host_memory(op, kernel, op.op_def.output_arg, op.outputs)
    moves = op.type not in _NO_LAUNCH
    if moves and any(_elements(tensor) >= LARGE for tensor in (*wanted, *host)):
        result.in_host_memory.append(_describe(op, [*wanted, *host]))
    return wanted, host


def _add_copies_to_host(wanted, on_device: set[int], result: Audit) -> None:
    for tensor in wanted:
        if id(tensor) in on_device and tensor.dtype.name != "resource":
            on_device.discard(id(tensor))  # copied once only
            maker = tensor.op
            while maker.type == "Identity":
                maker = maker.inputs[0].op
            result.to_host.append(_describe(maker, [tensor]))


def _is_compiled(op) -> bool:
    return "_XlaMustCompile" in op.node_def.attr and op.get_attr("_XlaMustCompile")


def _functions(op) -> list[tuple[str, object]]:
    """Pairs of attribute and function that the operation calls."""
    names = []
    for attribute in op.op_def.attr:
        value = op.node_def.attr[attribute.name]
        if attribute.type == "func":
            names.append((attribute.name, value.func.name))
        elif attribute.type == "list(func)":
            names += [(attribute.name, one.name) for one in value.list.func]
    return [(attribute, op.graph._get_function(name)) for attribute, name in names if name]


@functools.cache
def _gpu_kernels(kind: str) -> list:
    """GPU kernels of an operation; those for DEFAULT serve all devices without kernels."""
    rows = kernels.get_registered_kernels_for_op(kind).kernel
    return [row for device in ("GPU", "DEFAULT") for row in rows if row.device_type == device]


def _find_kernel(op):
    """Returns the GPU kernel for the operation's dtypes; None if there is none."""
    for kernel in _gpu_kernels(op.type):
        if all(
            op.node_def.attr[constraint.name].type in constraint.allowed_values.list.type
            for constraint in kernel.constraint
            if constraint.allowed_values.list.type
        ):
            return kernel
    return None


def _in_host_memory(op, kernel, arguments, tensors) -> list:
    """Selects the tensors that the kernel keeps in host memory.

    arguments: Definitions of the operation's inputs or outputs, to which `tensors` belong.
    """
    tensors, host = list(tensors), []
    for argument in arguments:
        count = 1
        if argument.number_attr:
            count = op.get_attr(argument.number_attr)
        elif argument.type_list_attr:
            count = len(op.get_attr(argument.type_list_attr))
        if argument.name in kernel.host_memory_arg:
            host += tensors[:count]
        tensors = tensors[count:]
    return host


def _elements(tensor) -> int:
    if tensor.shape.rank is None:
        return 0
    return math.prod(_UNKNOWN_SIDE if side is None else side for side in tensor.shape)


def _describe(op, tensors) -> Operation:
    largest = max(tensors, key=_elements, default=None)
    dtype = "" if largest is None else largest.dtype.name
    shape = () if largest is None or largest.shape.rank is None else tuple(largest.shape)
    frames = _frames(op)
    line = f"{frames[-1].filename.removeprefix(_ROOT)}:{frames[-1].lineno}" if frames else ""
    return Operation(op.type, dtype, shape, _find_part(op), line)


def _frames(op) -> list:
    """Lines of the project in the operation's traceback, outermost first."""
    lines = [frame for frame in op.traceback if frame.filename.startswith(_ROOT)]
    return [frame for frame in lines if "/.venv/" not in frame.filename]


def _find_part(op) -> str:
    """Returns the part of the step to which an operation belongs: one of PARTS."""
    called = op.node_def.attr["f"].func.name if "f" in op.node_def.attr else ""
    for name, part in _PART_OF_COMPILED.items():
        if re.search(rf"_{name}_\d+$", called):
            return part
    frames = _frames(op)
    if not frames:
        return REST
    if "gradient_tape" in op.name or ".gradient(" in frames[-1].line:
        return GRADIENTS
    module = Path(frames[-1].filename).stem
    if module not in _PART_OF_MODULE and "keras" in _callee(op, frames[-1]).filename:
        return NETWORK
    return _PART_OF_MODULE.get(module, REST)


def _callee(op, own):
    """The frame that the project's line `own` calls; `own` itself if there is none."""
    frames = list(op.traceback)
    numbers = [n for n, frame in enumerate(frames) if frame.filename == own.filename]
    return frames[min(numbers[-1] + 1, len(frames) - 1)]
