#!/bin/sh
# Installs the Debian packages of one stage: `packages.sh build` or `packages.sh runtime VARIANT`.
set -eu

python="python3 ca-certificates"
case "$1" in
    build) packages="$python python3-venv" ;;
    # The engine's kernels are compiled at the first start, for the processor that they run on. The
    # operator runs the commands of pods with bash, and its probes use wget.
    runtime)
        packages="$python gcc libc6-dev bash wget"
        # vLLM's are compiled against Python's headers.
        if [ "${2:-}" = vllm ]; then packages="$packages python3-dev"; fi
        ;;
    *) echo "packages.sh: no stage '$1'; build or runtime" >&2; exit 2 ;;
esac

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # a list of words
apt-get install -qq -y --no-install-recommends $packages
rm -rf /var/lib/apt/lists/*
