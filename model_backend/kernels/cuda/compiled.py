"""CUDA C++ compiled at first use by NVRTC, the library that torch brings along; no toolkit is needed.

Only where ``KEYE_KERNELS=cuda`` asks for it, and on a GPU of compute capability 9.0; everywhere else Triton serves.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keyeloop.runtime.errors import BackendError, ConfigError

HERE = Path(__file__).resolve().parent
ARCHITECTURE = {(9, 0): "sm_90a"}


class Kernel:
    """A function of a loaded module; called with its grid, its threads, and tensors or 32-bit numbers."""

    def __init__(self, function: ctypes.c_void_p) -> None:
        self._function = function

    def __call__(
        self, grid: tuple[int, int], threads: int, given: Sequence[Tensor | int], shared_bytes: int = 0
    ) -> None:
        """Launches on torch's current stream; ``shared_bytes`` is dynamic shared memory."""
        values = [ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else ctypes.c_int(x) for x in given]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _check(_driver().cuLaunchKernel(self._function, *grid, 1, threads, 1, 1, shared_bytes, stream, pointers, None))

    def allow_shared(self, count_bytes: int) -> Kernel:
        """Lets it have so much dynamic shared memory; over 48 KB must be asked for."""
        _check(_driver().cuFuncSetAttribute(self._function, 8, count_bytes))
        return self


def wanted() -> bool:
    """Whether ``KEYE_KERNELS=cuda`` asks for these kernels where they fit; without it Triton's serve."""
    return os.environ.get("KEYE_KERNELS") == "cuda"


@cache
def available(device: int) -> bool:
    """Whether this GPU takes them. Raises ConfigError where it does and nothing here can compile them."""
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) not in ARCHITECTURE:
        return False
    try:
        loaded(b'extern "C" __global__ void nothing() {}', "nothing", device)
    except (OSError, BackendError) as error:
        raise ConfigError(
            f"KEYE_KERNELS=cuda: kernels cannot be compiled here ({error}): install nvidia-cuda-nvrtc of torch's CUDA "
            "release, or leave KEYE_KERNELS out"
        ) from None
    return True


@cache
def kernel(files: str, name: str, device: int, defined: tuple[tuple[str, int], ...] = ()) -> Kernel:
    """``name`` of ``files`` beside this module, one behind the other, with macros ``defined``, for one GPU.

    The first time takes a second.
    """
    return loaded(b"".join((HERE / file).read_bytes() for file in files.split()), name, device, defined)


def loaded(source: bytes, name: str, device: int, defined: tuple[tuple[str, int], ...] = ()) -> Kernel:
    """``name`` of ``source``, translated anew."""
    options = [f"--gpu-architecture={ARCHITECTURE[torch.cuda.get_device_capability(device)]}", "--std=c++17"]
    image = _translated(source, f"{name}.cu", [*options, *(f"-D{key}={value}" for key, value in defined)])
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    with torch.cuda.device(device):
        torch.cuda.synchronize()  # a thread's first call of the runtime makes the device's context current
        _check(_driver().cuModuleLoadData(ctypes.byref(module), image))
        _check(_driver().cuModuleGetFunction(ctypes.byref(function), module, name.encode()))
    return Kernel(function)


def _translated(source: bytes, file: str, options: list[str]) -> bytes:
    library, program, size = _nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source, file.encode(), 0, None, None)
    failed = library.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    )
    if failed:
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        raise BackendError(
            f"{file} does not compile: {log.value.decode(errors='replace')}; leave KEYE_KERNELS=cuda out"
        )
    library.nvrtcGetCUBINSize(program, ctypes.byref(size))
    image = ctypes.create_string_buffer(size.value)
    library.nvrtcGetCUBIN(program, image)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return image.raw


@cache
def _nvrtc() -> Any:
    major = (torch.version.cuda or "").split(".")[0]
    found = find_spec("nvidia")
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in sorted(Path(folder).glob(f"*/lib/libnvrtc.so.{major}*")):
            for builtins in path.parent.glob(f"libnvrtc-builtins.so.{major}*"):
                ctypes.CDLL(str(builtins))  # the library looks it up by name, and finds it if it is there already
            return ctypes.CDLL(str(path))
    return ctypes.CDLL(f"libnvrtc.so.{major}")


@cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _check(code: int) -> None:
    if code:
        said = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(said))
        raise BackendError(f"CUDA's driver says {(said.value or b'?').decode()} ({code}) to a kernel of ours")
