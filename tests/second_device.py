"""A second device in pure Python that goes by the name of CUDA, for machines without a GPU.

Its tensors say ``cuda:0`` and keep their values in a CPU tensor that nobody else sees. Every operation on them runs on
the values, under CUDA's rules about places: tensors of both devices do not meet (but for CPU scalars, CPU indices and
copies), nothing turns into NumPy, generators belong to one device and the same seed draws other numbers on each, memory
is counted and runs out. What it computes is what the CPU computes, bit for bit, so that a difference is a fault of the
code that was run on it.

It is no GPU: it says nothing about CUDA's kernels, their numerics, their speed, streams, pinned memory, or what the
allocator and kernels need beside their results. Operations whose result has another size than the ``out=`` they are
given, storages, ``torch.compile`` and fused optimisers are not there. Attention takes the plain (math) path.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_flatten, tree_map

from .second_device_autograd import backward

aten = torch.ops.aten
PLACE = torch.device("cuda", 0)

_COPIES = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}
"""What takes tensors of both devices, of whatever size."""
_INDEXED = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default,
    aten._unsafe_index.Tensor, aten._unsafe_index_put.default,
}  # fmt: skip
"""What takes indices from the CPU (and a CPU scalar as the value)."""
_SCALARS = {aten.fill_.Tensor, aten.fill.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor}
"""What takes a CPU scalar, beside everything that works point by point."""

_FACTORIES = (
    "_efficientzerotensor", "arange", "empty", "empty_permuted", "empty_strided", "eye", "full", "linspace", "logspace",
    "ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "tril_indices", "triu_indices", "zeros",
)  # fmt: skip
_DRAWS = ("bernoulli", "multinomial", "normal", "poisson", "rand", "randint", "randn", "randperm")
_DRAWS_IN_PLACE = ("bernoulli_", "exponential_", "multinomial", "normal_", "random_", "uniform_")


class _Guard(torch._C._acc.DeviceGuard):
    """What torch's C++ asks for the current device and stream: there is one of each."""

    def type_(self):
        return torch._C._autograd.DeviceType.CUDA


_GUARD = _Guard()


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Tell torch's C++ that there is a device called CUDA; by itself it makes nothing usable.

    A build of torch without CUDA takes such a guard from Python for the device type ``PrivateUse1`` only. The registry
    is an array of pointers by type, and the pointer is moved from there to CUDA's place.
    """
    library = ctypes.CDLL(str(next((Path(torch.__file__).parent / "lib").glob("libc10.*"))))
    cuda, private = torch._C._autograd.DeviceType.CUDA.value, torch._C._autograd.DeviceType.PrivateUse1.value
    slots = (ctypes.c_void_p * (private + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    before = slots[cuda]
    assert torch._C._acc.register_python_privateuseone_device_guard(_GUARD)
    slots[cuda], slots[private] = slots[private], None
    try:
        yield
    finally:
        slots[cuda] = before


class SecondTensor(torch.Tensor):
    """A tensor on the second device; ``held`` has the values, ``block`` counts their memory."""

    held: torch.Tensor
    block: Any
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func, _types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def numpy(self, *, force=False):
        if force:
            return self.detach().cpu().numpy()
        message = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory"
        raise TypeError(message + " first.")

    def tolist(self):
        return self.detach().cpu().tolist()

    def data_ptr(self):
        return self.held.data_ptr()

    def untyped_storage(self):  # for those who tell tensors apart by where they lie
        return self.held.untyped_storage()

    def __repr__(self, *, tensor_contents=None):
        return f"{self.held!r} on {self.device}"

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            twin = self.detach().clone().requires_grad_(self.requires_grad)
            twin.__dict__.update({key: value for key, value in self.__dict__.items() if key not in ("held", "block")})
            memo[id(self)] = twin
        return memo[id(self)]

    def __reduce_ex__(self, protocol):  # what is saved comes back on the CPU
        return self.detach().cpu().__reduce_ex__(protocol)


class SecondGenerator(torch._C.Generator):
    """A generator of the second device: from one seed it draws other numbers than the CPU's."""

    device = PLACE

    def __init__(self) -> None:
        self._seed = 0
        self.manual_seed(67280421310721)
        _generators[self._cdata] = self  # type: ignore[attr-defined]

    def manual_seed(self, seed):
        self._seed = int(seed)
        super().manual_seed((self._seed ^ 0x5DEECE66D) & (2**63 - 1))
        return self

    def initial_seed(self):
        return self._seed


_generators: weakref.WeakValueDictionary[int, SecondGenerator] = weakref.WeakValueDictionary()
"""Those of the second device by address: what torch's C++ hands back is another Python object."""


class _AnyGenerator(type):
    """Stands for ``torch.Generator``: makes one of the device asked for."""

    def __call__(cls, device="cpu"):
        return SecondGenerator() if torch.device(device).type == "cuda" else torch._C.Generator(device)

    def __instancecheck__(cls, thing):
        return isinstance(thing, torch._C.Generator)


class _Block:
    """Memory of one storage, for as long as a tensor of the device lies in it."""

    def __init__(self, size: int, device: SecondDevice) -> None:
        device.allocate(size)
        self._end = weakref.finalize(self, device.free, size)
        self._end.atexit = False


class SecondDevice:
    """What the device holds.

    Attributes:
        capacity: bytes it has; what goes beyond ends in ``torch.cuda.OutOfMemoryError``.
        used: bytes its tensors lie in now.
        peak: the most there were since it was last reset.
        refused: how many times memory ran out.
        generator: its default generator.
        operations: how many operations ran on it, so that a test can show that something was there at all.
    """

    def __init__(self, capacity: int = 80 * 2**30) -> None:
        self.capacity = capacity
        self.used = self.peak = self.refused = self.operations = 0
        self.generator = SecondGenerator()
        self.blocks: weakref.WeakValueDictionary[int, _Block] = weakref.WeakValueDictionary()

    def allocate(self, size: int) -> None:
        """Take memory."""
        if self.used + size > self.capacity:
            self.refused += 1
            raise torch.cuda.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB.")
        self.used += size
        self.peak = max(self.peak, self.used)

    def free(self, size: int) -> None:
        """Give memory back."""
        self.used -= size

    def wrap(self, held: torch.Tensor) -> SecondTensor:
        """Return a tensor of this device that has these values."""
        pointer = held.untyped_storage().data_ptr()
        block = self.blocks.get(pointer)
        if block is None:
            block = _Block(held.untyped_storage().nbytes(), self)
            if pointer:
                self.blocks[pointer] = block
        made = torch.Tensor._make_wrapper_subclass(
            SecondTensor, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=PLACE,
        )  # fmt: skip
        made.held, made.block = held, block
        return made


_active: list[SecondDevice] = []


def _here() -> SecondDevice:
    assert _active, "a tensor of the second device outlived it"
    return _active[-1]


def _place(device: Any) -> torch.device:
    """Return the device meant, which must be there."""
    place = torch.device(device)
    if place.type == "cuda" and place.index not in (None, 0):
        raise RuntimeError("CUDA error: invalid device ordinal")
    return place


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation with a tensor of the second device among its arguments."""
    device = _here()
    if torch.is_inference_mode_enabled():  # where torch neither takes operations apart nor tells views from others
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            return func.decompose(*args, **kwargs)
        if func.is_view and not args[0].is_inference():
            with torch.inference_mode(mode=False):
                return _run(func, args, kwargs)
    device.operations += 1
    if func is aten._fused_sdp_choice.default:
        return torch.nn.attention.SDPBackend.MATH.value
    if func is aten._has_compatible_shallow_copy_type.default:
        return False
    leaves = tree_flatten((args, kwargs))[0]
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    _check_places(func, args, tensors)
    place = PLACE if kwargs.get("device") is None else _place(kwargs["device"])
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    theirs = {id(leaf.held): leaf for leaf in tensors if isinstance(leaf, SecondTensor)}
    plain_args, plain_kwargs = tree_map(
        lambda leaf: leaf.held if isinstance(leaf, SecondTensor) else leaf, (args, kwargs)
    )
    with _drawing(func, leaves, place):
        found = func(*plain_args, **plain_kwargs)
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)
    for held_by in theirs.values():
        if held_by.held.shape != held_by.shape:
            raise NotImplementedError(f"{func} changed the size of a tensor of the second device")

    def back(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return theirs.get(id(leaf)) if id(leaf) in theirs else (device.wrap(leaf) if place.type == "cuda" else leaf)

    # copy_ into a CPU tensor gives that one back
    given = {id(tensor) for tensor in tensors}
    return tree_map(lambda leaf: leaf if id(leaf) in given else back(leaf), found)


def _check_places(func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
    """Refuse what CUDA refuses: tensors of both devices in one operation."""
    if func in _COPIES:
        return
    if func in _INDEXED:
        tensors = [args[0], *(leaf for leaf in args[2:3] if leaf.dim() or isinstance(leaf, SecondTensor))]
        indices = [index for index in args[1] if index is not None]
        if not isinstance(args[0], SecondTensor) and any(isinstance(index, SecondTensor) for index in indices):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    if func in _SCALARS or torch.Tag.pointwise in func.tags:
        out = [leaf for leaf in tensors[:1] if func._schema.is_mutable]  # written to: not even a scalar
        tensors = out + [leaf for leaf in tensors if leaf.dim() or isinstance(leaf, SecondTensor)]
    if len({leaf.device for leaf in tensors}) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({func})"
        )


@contextlib.contextmanager
def _drawing(func: Any, leaves: list[Any], place: torch.device) -> Iterator[None]:
    """Let an operation draw from the generator of its device, and from no other."""
    given = [leaf for leaf in leaves if isinstance(leaf, torch._C.Generator)]
    for generator in given:
        _same_place(generator, place)
    if given or torch.Tag.nondeterministic_seeded not in func.tags or place.type != "cuda":
        yield
        return
    own, cpu = _here().generator, torch.default_generator
    before = cpu.get_state()
    cpu.set_state(own.get_state())
    try:
        yield
    finally:
        own.set_state(cpu.get_state())
        cpu.set_state(before)


def _same_place(generator: torch._C.Generator, place: torch.device) -> None:
    own = "cuda" if generator._cdata in _generators else "cpu"  # type: ignore[attr-defined]
    if own != place.type:
        raise RuntimeError(f"Expected a '{place.type}' device type for generator but found '{own}'")


def _factory(operation: Any) -> Callable[..., Any]:
    """Return the kernel of the second device for an operation that makes a tensor of nothing."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        _place(kwargs.get("device") or PLACE)
        kwargs = {**kwargs, "device": torch.device("cpu")}
        kwargs.pop("pin_memory", None)
        made = aten.zeros if operation is aten._efficientzerotensor.default else operation
        with _drawing(operation, tree_flatten((args, kwargs))[0], PLACE):
            return _here().wrap(made(*args, **kwargs))

    return kernel


def _checked_draw(original: Callable[..., Any], *, method: bool) -> Callable[..., Any]:
    """Return a drawing function that refuses the other device's generator on the CPU, as torch does."""

    def draw(*args: Any, generator: Any = None, **kwargs: Any) -> Any:
        if generator is None:
            return original(*args, **kwargs)
        given = [leaf for leaf in args if isinstance(leaf, torch.Tensor)]
        place = given[0].device if method or given else torch.device(kwargs.get("device") or "cpu")
        _same_place(generator, place)
        return original(*args, generator=generator, **kwargs)

    return draw


def _settings(device: SecondDevice) -> dict[str, Any]:
    """Return what stands in ``torch.cuda`` while the device is there."""

    def reset(_device: Any = None) -> None:
        device.peak = device.used

    def there(place: Any = None) -> None:
        _place(PLACE if place is None else f"cuda:{place}" if isinstance(place, int) else place)

    properties = SimpleNamespace(
        name="second device", total_memory=device.capacity, major=8, minor=0, multi_processor_count=1
    )
    generator = device.generator
    return {
        "_lazy_init": lambda: None,
        "_exchange_device": lambda _index: 0,
        "_maybe_exchange_device": lambda _index: 0,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda including_emulation=True: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": there,
        "synchronize": lambda device=None: there(device),
        "empty_cache": lambda: None,
        "get_device_name": lambda _device=None: properties.name,
        "get_device_capability": lambda _device=None: (8, 0),
        "get_device_properties": lambda _device=None: properties,
        "mem_get_info": lambda _device=None: (device.capacity - device.used, device.capacity),
        "memory_allocated": lambda _device=None: device.used,
        "memory_reserved": lambda _device=None: device.used,
        "max_memory_allocated": lambda _device=None: device.peak,
        "max_memory_reserved": lambda _device=None: device.peak,
        "reset_peak_memory_stats": reset,
        "manual_seed": lambda seed: generator.manual_seed(seed),
        "manual_seed_all": lambda seed: generator.manual_seed(seed),
        "initial_seed": lambda: generator.initial_seed(),
        "get_rng_state": lambda _device=None: generator.get_state(),
        "set_rng_state": lambda state, _device=None: generator.set_state(state),
        "get_rng_state_all": lambda: [generator.get_state()],
        "set_rng_state_all": lambda states: generator.set_state(states[0]),
    }


def _loading(load: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``torch.load`` bring tensors to this device."""

    def loaded(*args: Any, map_location: Any = None, **kwargs: Any) -> Any:
        if not isinstance(map_location, (str, torch.device)) or torch.device(map_location).type != "cuda":
            return load(*args, map_location=map_location, **kwargs)
        found = load(*args, map_location="cpu", **kwargs)
        return tree_map(lambda leaf: leaf.to(map_location) if isinstance(leaf, torch.Tensor) else leaf, found)

    return loaded


def _keeping_parameters(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Let a module that moves keep its parameter objects, as it does between CPU and CUDA."""

    def moved(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return apply(self, *args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    return moved


@contextlib.contextmanager
def second_device(capacity: int = 80 * 2**30) -> Iterator[SecondDevice]:
    """Put the device into torch under the name of CUDA, and take it away again.

    Args:
        capacity: its memory in bytes.
    """
    assert not torch.cuda.is_available(), "there is a real one"
    device = SecondDevice(capacity)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_guarded())
        library = torch.library.Library("aten", "IMPL")
        stack.callback(library._destroy)
        for name in _FACTORIES:
            packet = getattr(aten, name)
            for overload in packet.overloads():
                if "out" not in overload and "names" not in overload:
                    operation = getattr(packet, overload)
                    library.impl(
                        operation._schema.name.split("::")[1] + ("" if overload == "default" else f".{overload}"),
                        _factory(operation),
                        "CUDA",
                    )
        for name, value in _settings(device).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch, "load", _loading(torch.load)))
        stack.enter_context(mock.patch.object(torch, "Generator", _AnyGenerator("Generator", (), {})))
        for name in _DRAWS:
            stack.enter_context(mock.patch.object(torch, name, _checked_draw(getattr(torch, name), method=False)))
        for name in _DRAWS_IN_PLACE:
            stack.enter_context(
                mock.patch.object(torch.Tensor, name, _checked_draw(getattr(torch.Tensor, name), method=True))
            )
        stack.enter_context(mock.patch.object(torch.nn.Module, "_apply", _keeping_parameters(torch.nn.Module._apply)))
        stack.enter_context(
            mock.patch.object(
                torch.autograd,
                "_engine_run_backward",
                backward(torch.autograd._engine_run_backward, SecondTensor),  # type: ignore[attr-defined]
            )
        )
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        _active.append(device)
        stack.callback(_active.pop)
        yield device
