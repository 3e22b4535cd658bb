#!/bin/sh
# Plato and what it needs, in the versions of constraints.txt: `install.sh FOLDER VARIANT`.
#
# VARIANT is cpu or cuda, and differs by the build of torch alone. Where pip's own index has the
# other one, TORCH_INDEX is the index that PyTorch names for yours. Only torch comes from it.
set -eu

folder=$1 variant=$2
case "$variant" in
    cpu | cuda) ;;
    *) echo "install.sh: no variant '$variant'; cpu or cuda" >&2; exit 2 ;;
esac

python3 -m venv "$folder"
install() { "$folder/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check \
    -c constraints.txt "$@"; }
if [ -n "${TORCH_INDEX:-}" ]; then
    install --index-url "$TORCH_INDEX" --no-deps torch
fi
install .

"$folder/bin/python" - "$variant" <<'END'
import sys

import torch

variant, cuda = sys.argv[1], torch.version.cuda
if (cuda is not None) != (variant == "cuda"):
    sys.exit(
        f"install.sh: the variant is {variant}, and this torch is for "
        f"{'CUDA ' + cuda if cuda else 'CPUs'}; name the other index with TORCH_INDEX"
    )
END
