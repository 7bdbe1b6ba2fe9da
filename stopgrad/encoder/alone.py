"""Reads an exported encoder as somebody without stopgrad does. A script of its own: it imports nothing of the package.

    python -I alone.py request.json

The request names the file, the images and where the answer goes. `arguments`, where they are there, are what
`timm.create_model` needs for the model; without them the tensors are read and their checksums answered.
"""

import hashlib
import json
import sys

import numpy as np

BATCHES = ((0, 1), (1, 3), (3, 8))  # of the images: batches of 1, 2 and 5


def main() -> None:
    sys.modules["stopgrad"] = None  # type: ignore[assignment]  # installed or not, it can't be imported from here on
    with open(sys.argv[1]) as file:  # noqa: PTH123
        request = json.load(file)
    images = np.load(request["images"], allow_pickle=False)  # [8, C, S, S], float32, pixel values; or waveforms [8, T]
    if request["model"].endswith(".onnx"):
        answer = {"features": from_onnx(request["model"], request["input"], images)}
    elif request["arguments"] is not None:
        answer = {"features": from_timm(request, images)}
    else:
        answer = {"checksums": checksums(request["model"])}
    with open(request["answer"], "wb") as out:  # noqa: PTH123
        np.savez(out, allow_pickle=False, **answer)


def from_onnx(path: str, name: str, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    json.loads(session.get_modelmeta().custom_metadata_map["stopgrad"])
    return np.concatenate([session.run(["features"], {name: images[a:b]})[0] for a, b in BATCHES])


def from_timm(request: dict, images: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    import timm
    import torch
    from safetensors import safe_open

    with safe_open(request["model"], framework="pt") as file:
        described = json.loads(file.metadata()["stopgrad"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    model = timm.create_model(described["backbone"]["name"], **request["arguments"])
    if width := request["small_stem"]:
        model.conv1 = torch.nn.Conv2d(images.shape[1], width, 3, 1, 1, bias=False)
        model.maxpool = torch.nn.Identity()
    model.load_state_dict(tensors)
    model.eval()
    mean, std = (torch.tensor(described["preprocess"][name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    x = (torch.from_numpy(images) / request["largest"] - mean) / std
    with torch.no_grad():
        return torch.cat([model(x[a:b]) for a, b in BATCHES]).numpy()


def checksums(path: str) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        json.loads(file.metadata()["stopgrad"])["preprocess"]
        found = [
            f"{name} {list(tensor.shape)} {hashlib.sha256(tensor.tobytes()).hexdigest()}"
            for name, tensor in ((name, file.get_tensor(name)) for name in sorted(file.keys()))
        ]
    return np.array(found)


if __name__ == "__main__":
    main()
