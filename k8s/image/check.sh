#!/bin/sh
# Checks that the image starts: fails the build rather than the pod.
set -eu

ray --version
cc --version | head -n 1
python -c '
import deployments.app, plato.models.__main__, plato.engine.torch, ray.dashboard.modules.serve
from importlib.util import find_spec
from plato.engine.torch.kernels.build import load_library
assert load_library() is not None, "the kernels do not compile"
if find_spec("vllm"):
    import plato.engine.vllm
'
