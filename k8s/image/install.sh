#!/bin/sh
# Installs Plato and its dependencies, in the versions of constraints.txt: `install.sh FOLDER VARIANT`.
#
# VARIANT is cpu, cuda or vllm. The first two differ only in the build of torch; vllm is cuda with vLLM.
# If pip's index has the other build, set TORCH_INDEX to the index that PyTorch lists for your variant;
# only torch is installed from it.
set -eu

folder=$1 variant=$2
case "$variant" in
    cpu | cuda) plato=".[otel,serve]" bounded=none ;;
    # vLLM bounds these itself, below the versions of constraints.txt.
    vllm) plato=".[otel,vllm]" bounded="fastapi|llguidance|numpy|transformers" ;;
    *) echo "install.sh: no variant '$variant'; cpu, cuda or vllm" >&2; exit 2 ;;
esac

python3 -m venv "$folder"
grep -vE "^($bounded)==" constraints.txt > "$folder/constraints.txt"
install() { "$folder/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check \
    -c "$folder/constraints.txt" "$@"; }
if [ -n "${TORCH_INDEX:-}" ]; then
    install --index-url "$TORCH_INDEX" --no-deps torch
fi
install "$plato"

"$folder/bin/python" - "$variant" <<'END'
import sys

import torch

variant, cuda = sys.argv[1], torch.version.cuda
if (cuda is not None) != (variant != "cpu"):
    sys.exit(
        f"install.sh: the variant is {variant}, and this torch is for "
        f"{'CUDA ' + cuda if cuda else 'CPUs'}; name the other index with TORCH_INDEX"
    )
END
