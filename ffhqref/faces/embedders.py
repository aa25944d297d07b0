"""Face recognition networks: dlib's ResNet, any ArcFace-like ONNX file, insightface model packs."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, DependencyError, WeightsError
from ffhqref.core.hashing import sha256_bytes
from ffhqref.faces.onnx_input import input_rule
from ffhqref.weights.tensors import held, read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.weights.files import Weights


_log = logging.getLogger(__name__)


class DlibEmbedder:
    """dlib's 128-d face ResNet from the packages ``dlib-bin`` and ``face_recognition_models`` (CC0).

    The network gives vectors of length about 1.5; they are normalised here, so that distance is 1 - cosine as for
    every other embedder. dlib's customary Euclidean threshold of 0.6 is about 0.08 on this scale.

    Args:
        path: a ``dlib_face_recognition_resnet_model_v1.dat`` to use instead of the packaged one.
    """

    dim = 128
    face_size = 150
    template = "dlib"
    threaded = False  # dlib keeps Python's lock: it is spread over processes, see ffhqref.faces.store

    def __init__(self, path: str | Path | None = None) -> None:
        try:
            import dlib
        except ImportError:
            raise DependencyError("embedder 'dlib' needs the package dlib-bin: pip install dlib-bin") from None
        file = Path(path) if path else _packaged_dlib_model()
        if not file.is_file():
            raise WeightsError(f"embedder 'dlib': no such file: {file}; leave embedder.path empty for the packaged one")
        with held(file) as found:
            try:
                self._network = dlib.face_recognition_model_v1(str(found.name))
            except RuntimeError as error:
                raise WeightsError(f"embedder 'dlib': {file} is no dlib face recognition model ({error})") from None
        self.weights_sha256 = {file.name: found.sha256}
        self.signature = f"dlib-resnet-v1:{self.weights_sha256[file.name][:12]}"

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 [B, 128], L2-normalised, from uint8 RGB [B, 150, 150, 3]."""
        check_faces(faces, self.face_size)
        if not len(faces):
            return np.zeros((0, self.dim), np.float32)
        vectors = np.array([self._network.compute_face_descriptor(face, 0) for face in faces])
        return normalised(vectors)


def _packaged_dlib_model() -> Path:
    spec = importlib.util.find_spec("face_recognition_models")  # by path: importing it needs pkg_resources
    if spec is None or spec.origin is None:
        raise DependencyError(
            "embedder 'dlib' needs the package face_recognition_models: pip install face_recognition_models"
        )
    return Path(spec.origin).parent / "models" / "dlib_face_recognition_resnet_model_v1.dat"


class OnnxEmbedder:
    """An ArcFace-like network in one ONNX file: input [n, 3, S, S], (x / 255 - mean) / std, output [n, dim].

    Args:
        path: the file.
        mean: subtracted after division by 255; None: 0.5, or what the network's first nodes ask for, see
            `ffhqref.faces.onnx_input.input_rule`.
        std: divided by after that; None: likewise.
        channels: ``rgb`` or ``bgr``: the order in which the network takes colours, which no file tells. ArcFace's take
            RGB, AdaFace's BGR; the wrong one gives plausible vectors and wrong cosines.
        template: five-point layout of the crop it was trained on.
        batch_size: faces a call, when the file allows more than one.
        threads: threads of the session; 0: ``OMP_NUM_THREADS`` where that is set, else onnxruntime's choice.
        device: ``auto``: CUDA where onnxruntime has it and it works, else the CPU; ``cpu``; ``cuda`` or ``cuda:1``:
            there, or an error. The attribute ``device`` says where it is.
        fall_back: go to the CPU instead of that error, and log a warning; for a device that was meant for networks in
            torch, since onnxruntime's CUDA is a package of its own.

    Raises:
        ConfigError: no file is named, or onnxruntime cannot work on the device named.
        DependencyError: onnxruntime is not installed.
        WeightsError: the file is absent, or no such network.
    """

    def __init__(
        self,
        path: Weights | str | Path | None,
        mean: float | None = None,
        std: float | None = None,
        template: str = "arcface",
        batch_size: int = 16,
        threads: int = 0,
        device: str = "auto",
        fall_back: bool = False,
        channels: str = "rgb",
    ) -> None:
        check_channels(channels)
        if not path:
            raise ConfigError("this embedder needs a file: embedder.path=/path/to/network.onnx")
        file = Path(path)
        if not file.is_file():
            raise WeightsError(f"embedder: no such file: {file}; set embedder.path to an ArcFace-like ONNX file")
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it writes files into the home folder otherwise
        try:
            import onnxruntime
        except ImportError:
            raise DependencyError("an ONNX embedder needs onnxruntime: pip install 'ffhqref[faces]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or _environment_threads()
        options.log_severity_level = 3
        # Spinning threads would take the cores from those that read images meanwhile (ffhqref.faces.store).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        content = read_bytes(path)
        providers = _providers(device, onnxruntime.get_available_providers(), fall_back)
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # noqa: BLE001 - onnxruntime raises its own unrelated types
            raise WeightsError(f"embedder: {file} is no usable ONNX network ({str(error).splitlines()[0]})") from None
        # onnxruntime goes on without CUDA when a library of it is missing
        on_cuda = _CUDA in self._session.get_providers()
        if device.startswith("cuda") and not on_cuda and not fall_back:
            raise ConfigError(f"embedder: device={device}: onnxruntime cannot start its CUDA here; {_ELSEWHERE}")
        if device.startswith("cuda") and not on_cuda:
            _log.warning("%s works on the CPU: onnxruntime has no CUDA here (onnxruntime-gpu brings it)", file.name)
        self.device = (device if device.startswith("cuda") else "cuda") if on_cuda else "cpu"
        entry = self._session.get_inputs()[0]
        shape = list(entry.shape)
        if len(shape) != 4 or shape[1] != 3 or not isinstance(shape[2], int):
            raise WeightsError(f"embedder: {file} takes {shape}, expected [n, 3, S, S] faces")
        self.face_size = int(shape[2])
        self.template = template
        rule = input_rule(file, mean, std, content)
        self._input, self._mean, self._std, self._flip = entry.name, rule.mean, rule.std, channels == "bgr"
        self._batch = 1 if shape[0] == 1 else batch_size
        self.weights_sha256 = {file.name: sha256_bytes(content)}
        probe = self._run(np.zeros((1, self.face_size, self.face_size, 3), np.uint8))
        if probe.ndim != 2:
            raise WeightsError(f"embedder: {file} gives an output of shape {probe.shape}, expected [n, dim]")
        self.dim = int(probe.shape[1])
        digest = self.weights_sha256[file.name][:12]
        order = " bgr" if self._flip else ""
        self.signature = f"onnx:{digest}|x=({rule.mean:g},{rule.std:g}){order}|{self.face_size}px {template}"

    def _run(self, faces: NDArray[Any]) -> NDArray[np.float32]:
        values = (faces[..., :: -1 if self._flip else 1].astype(np.float32) / 255.0 - self._mean) / self._std
        found = self._session.run(None, {self._input: np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)})
        return np.asarray(found[0], dtype=np.float32)

    def __call__(self, faces: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 [B, dim], L2-normalised, from RGB [B, S, S, 3]: uint8, or float32 in 0..255 unrounded."""
        check_faces(faces, self.face_size, (np.uint8, np.float32))
        parts = [self._run(faces[start : start + self._batch]) for start in range(0, len(faces), self._batch)]
        return normalised(np.concatenate(parts)) if parts else np.zeros((0, self.dim), np.float32)


def check_channels(channels: str) -> None:
    """Refuse an order of channels that is none.

    Raises:
        ConfigError: neither ``rgb`` nor ``bgr``.
    """
    if channels not in ("rgb", "bgr"):
        raise ConfigError(f"embedder: channels={channels}: expected rgb or bgr")


_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_ELSEWHERE = "set embedder.device=auto (CUDA where it works, else the CPU) or cpu"


def onnxruntime_has_cuda() -> bool:
    """Return whether this onnxruntime was built with CUDA; whether it starts is another matter."""
    import onnxruntime

    return _CUDA in onnxruntime.get_available_providers()


def _providers(device: str, available: Sequence[str], fall_back: bool) -> list[str | tuple[str, dict[str, str]]]:
    """Return onnxruntime's providers for a device, in order.

    Raises:
        ConfigError: there is none.
    """
    kind, _, index = device.partition(":")
    if device == "auto":  # TensorRT would build an engine for minutes, of other precision
        return [name for name in available if not name.startswith("Tensorrt")]
    if kind == "cuda" and (not index or index.isdigit()):
        if _CUDA in available:
            return [(_CUDA, {"device_id": index or "0"}), _CPU]
        if not fall_back:
            raise ConfigError(
                f"embedder: device={device}: this onnxruntime has no CUDA; pip install onnxruntime-gpu in its place, "
                f"or {_ELSEWHERE}"
            )
    elif device != "cpu" and not fall_back:
        raise ConfigError(f"embedder: device={device}: expected auto, cpu, cuda or cuda:1")
    return [_CPU]


def _environment_threads() -> int:
    """Return what this process is told to use, as workers beside each other are; 0 where nothing is said."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() else 0


def insightface_embedder(path: str | Path | None, **options: Any) -> OnnxEmbedder:
    """Return the ArcFace of an insightface model pack folder, or of a bare ArcFace ONNX file.

    ArcFace files of insightface take (x - 127.5) / 127.5 in RGB, or normalise their input themselves; `OnnxEmbedder`
    sees which.

    Args:
        path: a folder such as ``~/.insightface/models/buffalo_l`` or one file.
        options: of `OnnxEmbedder`.

    Raises:
        WeightsError: no file in the folder is a recognition network, or more than one is.
    """
    if not path:
        raise ConfigError("embedder 'insightface' needs embedder.path=FOLDER (a model pack) or embedder.path=FILE.onnx")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return OnnxEmbedder(folder, **options)
    files = sorted(folder.glob("*.onnx")) or sorted(folder.glob("*/*.onnx"))  # antelopev2 unpacks nested
    recognisers = [file for file in files if _is_recogniser(file)]
    if len(recognisers) != 1:
        names = ", ".join(file.name for file in recognisers) or "none"
        raise WeightsError(
            f"embedder 'insightface': {folder} holds {len(recognisers)} recognition networks ({names}) among "
            f"{len(files)} ONNX files, expected one; name the file itself with embedder.path"
        )
    return OnnxEmbedder(recognisers[0], **options)


def _is_recogniser(file: Path) -> bool:
    """Whether an ONNX file takes square faces of 112 px or more and gives one vector."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(read_bytes(file), providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - a file that does not load is no recogniser
        return False
    shape, outputs = session.get_inputs()[0].shape, session.get_outputs()
    if len(shape) != 4 or not isinstance(shape[2], int) or shape[2] < 112 or shape[2] != shape[3]:
        return False
    size = outputs[0].shape
    return len(outputs) == 1 and len(size) == 2 and isinstance(size[1], int) and size[1] >= 128 and shape[2] < 192


def check_faces(faces: NDArray[Any], size: int, kinds: tuple[type, ...] = (np.uint8,)) -> None:
    """Refuse faces that are no [B, size, size, 3] of one of these kinds."""
    if faces.dtype not in kinds or faces.ndim != 4 or faces.shape[1:] != (size, size, 3):
        raise ValueError(f"expected uint8 faces [B, {size}, {size}, 3], got {faces.dtype} {faces.shape}")


def normalised(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return vectors of length 1, float32 [B, dim]."""
    vectors = np.asarray(vectors, dtype=np.float64)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
